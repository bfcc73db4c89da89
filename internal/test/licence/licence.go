// Package licence tells a module's licence by the text of its licence file, for the tests
// that hold which ones this project is built from.
package licence

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// licences is how the licences that are accepted are told by their text. All permit use
// in programs of any licence; MPL-2.0 does as long as its own files stay as they are.
func licences() map[string]string {
	return map[string]string{
		"Apache-2.0":   "apache license version 2.0",
		"MIT":          "permission is hereby granted, free of charge, to any person obtaining a copy of this software",
		"BSD-3-Clause": "redistributions of source code must retain the above copyright notice, this list of conditions",
		"ISC":          "permission to use, copy, modify, and/or distribute this software for any purpose",
		"MPL-2.0":      "mozilla public license version 2.0",
		"FTL":          "the freetype license, which is similar to the original bsd license", // or the GPL, as one likes
		"CC-BY-4.0":    "creative commons attribution 4.0 international",
	}
}

// Of returns the licence of the module in dir, told by the text of its licence
// file, or an error for one that is not known.
func Of(dir string) (string, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return "", err
	}
	for _, path := range names {
		base := strings.ToLower(filepath.Base(path))
		if !strings.HasPrefix(base, "license") && !strings.HasPrefix(base, "licence") && !strings.HasPrefix(base, "copying") {
			continue
		}
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		if found := classify(string(b)); found != "" {
			return found, nil
		}
	}
	return "", fmt.Errorf("no known licence in %s", dir)
}

func classify(text string) string {
	text = strings.Join(strings.Fields(strings.ToLower(strings.NewReplacer("*", " ", ",", ", ").Replace(text))), " ")
	text = strings.NewReplacer(" ,", ",", "license, version", "license version").Replace(text)
	for _, copyleft := range []string{"gnu general public license", "gnu lesser general public license", "gnu affero"} {
		// MPL-2.0 names these as licences that it may be combined with, FTL as another choice.
		if strings.Contains(text, copyleft) && !strings.Contains(text, licences()["MPL-2.0"]) && !strings.Contains(text, licences()["FTL"]) {
			return ""
		}
	}
	// The order decides for files with more than one licence: the first is the
	// project's own, the others are of parts.
	first, at := "", len(text)
	known := licences()
	for _, name := range slices.Sorted(maps.Keys(known)) {
		if i := strings.Index(text, known[name]); i >= 0 && i < at {
			first, at = name, i
		}
	}
	if first == "BSD-3-Clause" && !strings.Contains(text, "neither the name") && !strings.Contains(text, "names of its contributors") {
		return "BSD-2-Clause"
	}
	return first
}
