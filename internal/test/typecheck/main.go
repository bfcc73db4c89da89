// Command typecheck looks whether all packages of the module, and their tests, are right in their
// types on other systems and processors. It is what a compiler finds, without what takes a compiler
// its time: of the packages that others have made only the declarations are read, and no code
// is generated. So it takes seconds for a system, and a build takes minutes.
//
//	go run ./internal/test/typecheck linux/arm64 darwin/arm64 windows/amd64 freebsd/amd64
//
// It does not link, and it does not see what only a compiler's back end refuses: assembly and
// functions without a body.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func main() {
	if err := run(os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "typecheck:", err)
		os.Exit(1)
	}
}

func run(out io.Writer, targets []string) error {
	if len(targets) == 0 {
		return errors.New("give it systems and processors, such as linux/arm64")
	}
	var errs []error
	for _, target := range targets {
		n, err := check(target, ".", "./...")
		fmt.Fprintf(out, "%s: %d packages\n", target, n)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", target, err))
		}
	}
	return errors.Join(errs...)
}

// pkg is what `go list` says of a package, or of one together with its tests.
type pkg struct {
	ImportPath string
	Name       string
	Dir        string
	GoFiles    []string
	ImportMap  map[string]string // from what is written to ImportPath, where they differ
	DepOnly    bool              // others' package, or one that the pattern does not name
	Module     *struct {
		Main      bool
		GoVersion string
	}
}

// check checks what patterns name in dir, and returns how many packages that were.
func check(target, dir string, patterns ...string) (n int, err error) {
	system, processor, ok := strings.Cut(target, "/")
	if !ok {
		return 0, fmt.Errorf("%q is no system and processor", target)
	}
	pkgs, err := list(system, processor, dir, patterns)
	if err != nil {
		return 0, err
	}
	sizes := types.SizesFor("gc", processor)
	if sizes == nil {
		return 0, fmt.Errorf("%q is no processor that Go knows", processor)
	}
	fset := token.NewFileSet()
	made := map[string]*types.Package{"unsafe": types.Unsafe}
	var errs []error
	// What a package imports comes before it.
	for _, p := range pkgs {
		if p.ImportPath == "unsafe" || p.Name == "main" && strings.HasSuffix(p.ImportPath, ".test") {
			continue // a program that runs tests, which `go test` writes
		}
		own := p.Module != nil && p.Module.Main
		var files []*ast.File
		for _, name := range p.GoFiles {
			if !filepath.IsAbs(name) {
				name = filepath.Join(p.Dir, name)
			}
			f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
			if err != nil {
				return n, err
			}
			files = append(files, f)
		}
		conf := types.Config{
			Importer: from{p, made}, Sizes: sizes, IgnoreFuncBodies: !own, FakeImportC: true,
			Error: func(err error) { errs = append(errs, err) },
		}
		if p.Module != nil && p.Module.GoVersion != "" {
			conf.GoVersion = "go" + p.Module.GoVersion
		}
		made[p.ImportPath], _ = conf.Check(p.ImportPath, fset, files, nil) // Error was told
		if own && !p.DepOnly {
			n++
		}
	}
	if n == 0 {
		errs = append(errs, errors.New("no package of the module was found"))
	}
	return n, errors.Join(errs...)
}

// from imports for a package.
type from struct {
	p    pkg
	made map[string]*types.Package
}

func (f from) Import(path string) (*types.Package, error) {
	if mapped, ok := f.p.ImportMap[path]; ok {
		path = mapped
	}
	if made := f.made[path]; made != nil {
		return made, nil
	}
	return nil, fmt.Errorf("%s is not among what `go list` found", path)
}

func list(system, processor, dir string, patterns []string) (pkgs []pkg, err error) {
	args := append([]string{"list", "-deps", "-test", "-json=ImportPath,Name,Dir,GoFiles,ImportMap,DepOnly,Module"}, patterns...)
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS="+system, "GOARCH="+processor, "CGO_ENABLED=0")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w: %s", err, stderr.String())
	}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		switch err := d.Decode(&p); {
		case errors.Is(err, io.EOF):
			return pkgs, nil
		case err != nil:
			return nil, fmt.Errorf("go list: %w", err)
		}
		pkgs = append(pkgs, p)
	}
}
