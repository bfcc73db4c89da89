package project

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// pkg is what go list says of a package that something of the module is built from.
type pkg struct {
	path           string
	imports, tests []string
}

// packages returns the module's packages, and the modules of all that they and their
// tests need, by the path of the package.
func packages(t *testing.T) (own []pkg, module map[string]string, dirs map[string]string) {
	t.Helper()
	module, dirs = map[string]string{}, map[string]string{}
	for _, line := range goList(t, "-test", "-deps", "-f", "{{.ImportPath}}\t{{with .Module}}{{.Path}}\t{{.Dir}}\t{{.Main}}{{end}}", "./...") {
		f := strings.Split(line, "\t")
		path, _, _ := strings.Cut(f[0], " ") // "p [p.test]" is p as its test sees it
		if len(f) == 4 && f[3] == "false" {
			module[path], dirs[f[1]] = f[1], f[2]
		}
	}
	for _, line := range goList(t, "-f", `{{.ImportPath}}	{{join .Imports " "}}	{{join .TestImports " "}} {{join .XTestImports " "}}`, "./...") {
		f := strings.Split(line, "\t")
		own = append(own, pkg{path: f[0], imports: strings.Fields(f[1]), tests: strings.Fields(f[2])})
	}
	return own, module, dirs
}

// dependency is a row of docs/dependencies.md.
type dependency struct{ module, part, licence, reason string }

func dependencies(t *testing.T) map[string]dependency {
	b, err := os.ReadFile("../../docs/dependencies.md")
	require.NoError(t, err)
	out := map[string]dependency{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([^|]+) \\| ([^|]+) \\| (.+) \\|$").FindAllStringSubmatch(string(b), -1) {
		require.NotContains(t, out, m[1], "two rows")
		out[m[1]] = dependency{m[1], m[2], m[3], m[4]}
	}
	require.NotEmpty(t, out)
	return out
}

// Each module that something here imports has a row in docs/dependencies.md, with the
// part that needs it and its licence, and there is a row for none that go.mod lacks.
func TestDependenciesHaveReasons(t *testing.T) {
	own, module, dirs := packages(t)
	// library is the packages that programs import, and what those import here.
	library := map[string]bool{}
	for _, p := range goList(t, "-deps", "./vault/...", "./kek", "./dek", "./keyring", "./block") {
		library[p] = true
	}
	part := map[string]string{}
	put := func(imp, where string) {
		order := []string{"", "tests", "examples", "library"}
		m := module[imp]
		if m != "" && slices.Index(order, part[m]) < slices.Index(order, where) {
			part[m] = where
		}
	}
	for _, p := range own {
		where := "tests"
		switch path := strings.TrimPrefix(p.path, "github.com/blockseal/blockseal/"); {
		case strings.HasPrefix(path, "examples/"):
			where = "examples"
		case library[p.path] && !strings.HasPrefix(path, "vault/vaulttest"):
			where = "library"
		}
		for _, imp := range p.imports {
			put(imp, where)
		}
		for _, imp := range p.tests {
			put(imp, "tests")
		}
	}
	rows := dependencies(t)
	for m, where := range part {
		row, ok := rows[m]
		require.True(t, ok, "docs/dependencies.md has no row for %s, which the %s import", m, where)
		require.Equal(t, where, row.part, "docs/dependencies.md: the part that needs %s", m)
		licence, err := licenceOf(dirs[m])
		require.NoError(t, err)
		require.Equal(t, licence, row.licence, "docs/dependencies.md: the licence of %s", m)
		require.Greater(t, len(row.reason), 20, "a reason for %s", m)
	}
	// CI runs go mod tidy -diff, so that go.mod requires what is imported.
	mod, err := os.ReadFile("../../go.mod")
	require.NoError(t, err)
	for m := range rows {
		require.Contains(t, string(mod), "\t"+m+" v", "docs/dependencies.md has a row for a module that go.mod does not require")
	}
	require.Greater(t, len(part), 5)
}

// licences is how the licences that are accepted are told by their text. All permit use
// in programs of any licence; MPL-2.0 does as long as its own files stay as they are.
func licences() map[string]string {
	return map[string]string{
		"Apache-2.0":   "apache license version 2.0",
		"MIT":          "permission is hereby granted, free of charge, to any person obtaining a copy of this software",
		"BSD-3-Clause": "redistributions of source code must retain the above copyright notice, this list of conditions",
		"ISC":          "permission to use, copy, modify, and/or distribute this software for any purpose",
		"MPL-2.0":      "mozilla public license version 2.0",
	}
}

// licenceOf returns the licence of the module in dir, told by the text of its licence
// file, or an error for one that is not known.
func licenceOf(dir string) (string, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return "", err
	}
	for _, path := range names {
		base := strings.ToLower(filepath.Base(path))
		if !strings.HasPrefix(base, "license") && !strings.HasPrefix(base, "licence") && !strings.HasPrefix(base, "copying") {
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
	text = strings.ReplaceAll(text, " ,", ",")
	for _, copyleft := range []string{"gnu general public license", "gnu lesser general public license", "gnu affero"} {
		// MPL-2.0 names these as licences that it may be combined with.
		if strings.Contains(text, copyleft) && !strings.Contains(text, "mozilla public license version 2.0") {
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

// Everything that is compiled into the packages, examples and tests has a licence that
// this project can be used with.
func TestLicencesAreKnown(t *testing.T) {
	_, _, dirs := packages(t)
	count := map[string]int{}
	for module, dir := range dirs {
		licence, err := licenceOf(dir)
		require.NoError(t, err, module)
		count[licence]++
	}
	require.Greater(t, len(dirs), 20)
	t.Logf("%d modules: %v", len(dirs), count)
	own, err := licenceOf("../..")
	require.NoError(t, err)
	require.Equal(t, "Apache-2.0", own)
}

func TestClassify(t *testing.T) {
	require.Equal(t, "", classify("All rights reserved. Do not copy."))
	require.Equal(t, "", classify("GNU GENERAL PUBLIC LICENSE\nVersion 3, 29 June 2007"))
	require.Equal(t, "", classify("This Business Source License permits ..."))
	require.Equal(t, "Apache-2.0", classify("   Apache License\n   Version 2.0, January 2004"))
	require.Equal(t, "MPL-2.0", classify("Mozilla Public License Version 2.0\n ... the GNU General Public License, Version 2.0"))
}
