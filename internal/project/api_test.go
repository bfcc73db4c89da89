package project

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write testdata/api anew")

const apiDir = "testdata/api"

// Everything that a public package exports is in a file under testdata/api, so that a change of
// the surface is seen in a diff. "go test ./internal/project -run TestAPI -update" writes it anew.
func TestAPI(t *testing.T) {
	written := map[string]bool{}
	for _, path := range publicPackages(t) {
		api, err := exported(filepath.Join("../..", path))
		require.NoError(t, err, path)
		name := strings.ReplaceAll(path, "/", "_") + ".txt"
		written[name] = true
		golden := filepath.Join(apiDir, name)
		if *update {
			require.NoError(t, os.MkdirAll(apiDir, 0o755))
			require.NoError(t, os.WriteFile(golden, []byte(api), 0o644))
			continue
		}
		want, err := os.ReadFile(golden)
		require.NoError(t, err, "of a new package, write it with: go test ./internal/project -run TestAPI -update")
		require.Equal(t, strings.ReplaceAll(string(want), "\r\n", "\n"), api,
			"what %s exports has changed: if it is meant, say so in CHANGELOG.md, and go test ./internal/project -run TestAPI -update", path)
	}
	kept, err := os.ReadDir(apiDir)
	require.NoError(t, err)
	for _, e := range kept {
		if !*update {
			require.True(t, written[e.Name()], "there is no package any more for %s", e.Name())
		} else if !written[e.Name()] {
			require.NoError(t, os.Remove(filepath.Join(apiDir, e.Name())))
		}
	}
}

// What the list has of a package is worth something only if a change would be seen in it.
func TestAPISeesEachKindOfName(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a.go"), []byte(`package a

const A, b = 1, 2
var C int
func F(x int) (y string) { return "" }
func g() {}
type T struct{ X, y int; E }
type E struct{}
type u struct{}
func (u) No()
func (*T) M(p []byte) error { return nil }
func (T) n() {}
type G[K any] struct{ k K }
func (G[K]) Of(K) {}
type I interface { Do(x int) error; hid() }
type L = E
`), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a_test.go"), []byte("package a\n\nfunc OnlyInTests() {}\n"), 0o600))
	api, err := exported(dir)
	require.NoError(t, err)
	require.Equal(t, `const A
func F(x int) (y string)
method (*T) M(p []byte) error
method (G) Of(K)
type E struct
type G struct
type I interface
type I interface, Do(x int) error
type L = E
type T struct
type T struct, E
type T struct, X int
var C
`, api)
}

// publicPackages returns the packages that programs outside of the module can import.
func publicPackages(t *testing.T) (paths []string) {
	for _, line := range goList(t, "-f", `{{.ImportPath}} {{.Name}}`, "./...") {
		path, name, _ := strings.Cut(strings.TrimPrefix(line, module), " ")
		if name == "main" || slices.Contains(strings.Split(path, "/"), "internal") || strings.HasPrefix(path, "examples/") || strings.HasPrefix(path, "docs/") {
			continue
		}
		paths = append(paths, path)
	}
	require.Contains(t, paths, "keyring")
	return paths
}

// exported lists what the package in dir exports, on whatever operating system: a line for each
// constant, variable, function, method, type, and for each field or method that a type has in clear.
func exported(dir string) (string, error) {
	files := token.NewFileSet()
	lines := map[string]bool{}
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return "", err
	}
	if len(paths) == 0 {
		return "", fmt.Errorf("%s: %w", dir, fs.ErrNotExist)
	}
	text := func(n any) string {
		var b bytes.Buffer
		err = printer.Fprint(&b, files, n)
		return strings.Join(strings.Fields(b.String()), " ")
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, errParse := parser.ParseFile(files, path, nil, 0)
		if errParse != nil {
			return "", errParse
		}
		for _, d := range f.Decls {
			for _, line := range declared(d, text) {
				lines[line] = true
			}
		}
	}
	var sorted []string
	for line := range lines {
		sorted = append(sorted, line+"\n")
	}
	slices.Sort(sorted)
	return strings.Join(sorted, ""), err
}

func declared(d ast.Decl, text func(any) string) (lines []string) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		signature := d.Name.Name + strings.TrimPrefix(text(d.Type), "func")
		switch {
		case !d.Name.IsExported():
		case d.Recv == nil:
			lines = append(lines, "func "+signature)
		default:
			if of, star := receiver(d.Recv.List[0].Type); ast.IsExported(of) {
				lines = append(lines, "method ("+star+of+") "+signature)
			}
		}
	case *ast.GenDecl:
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.ValueSpec:
				for _, n := range s.Names {
					if n.IsExported() {
						lines = append(lines, d.Tok.String()+" "+n.Name)
					}
				}
			case *ast.TypeSpec:
				if s.Name.IsExported() {
					lines = append(lines, members(s, text)...)
				}
			}
		}
	}
	return lines
}

func receiver(e ast.Expr) (name, star string) {
	switch e := e.(type) {
	case *ast.StarExpr:
		name, _ = receiver(e.X)
		return name, "*"
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name, ""
	}
	return "", ""
}

func members(s *ast.TypeSpec, text func(any) string) []string {
	head := "type " + s.Name.Name + " "
	if s.Assign.IsValid() {
		return []string{head + "= " + text(s.Type)}
	}
	var kind string
	var list *ast.FieldList
	switch t := s.Type.(type) {
	case *ast.StructType:
		kind, list = "struct", t.Fields
	case *ast.InterfaceType:
		kind, list = "interface", t.Methods
	default:
		return []string{head + text(s.Type)}
	}
	lines := []string{head + kind}
	for _, m := range list.List {
		of := text(m.Type)
		if len(m.Names) == 0 {
			if name, _ := receiver(m.Type); name == "" || ast.IsExported(name) {
				lines = append(lines, head+kind+", "+of)
			}
		}
		for _, n := range m.Names {
			switch _, method := m.Type.(*ast.FuncType); {
			case !n.IsExported():
			case method && kind == "interface":
				lines = append(lines, head+kind+", "+n.Name+strings.TrimPrefix(of, "func"))
			default:
				lines = append(lines, head+kind+", "+n.Name+" "+of)
			}
		}
	}
	return lines
}
