package licence

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// NoticesFile is where the notices lie, in the module's directory.
const NoticesFile = "THIRD_PARTY_NOTICES"

// own is how the import paths of this module's packages begin.
const own = "github.com/blockseal/blockseal/"

// program is what programs import, by a short name: the packages whose paths in this module
// have one of the prefixes.
type program struct {
	name     string
	prefixes []string
}

func programs() []program {
	return []program{
		{"block", []string{"block", "vault/local", "vault/audit"}},
		{"blockprom", []string{"block/blockprom"}},
		{"blockhttp", []string{"block/blockhttp"}},
		{"postgres", []string{"block/postgres"}},
		{"azure", []string{"vault/azure"}},
		{"examples", []string{"examples/"}},
	}
}

// has reports whether the package of this module at path is one that the program begins with.
func (p program) has(path string) bool {
	for _, prefix := range p.prefixes {
		if path == prefix || strings.HasSuffix(prefix, "/") && strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}

// target is what a program is built for: some modules are linked on one system alone, and
// some only where there is a C compiler.
type target struct{ os, arch, cgo string }

func targets() []target {
	return []target{
		{"linux", "amd64", "1"}, {"linux", "amd64", "0"}, {"linux", "arm64", "0"},
		{"darwin", "arm64", "1"}, {"windows", "amd64", "0"}, {"freebsd", "amd64", "0"},
	}
}

// linked is a module whose packages are linked into a program.
type linked struct {
	path, version, dir string
	programs           []string        // in the order of [programs]
	dirs               map[string]bool // of its packages that are linked
}

// linkedModules returns the modules other than the one in root that programs link, on any
// system that the project is for, by their paths.
func linkedModules(root string) (map[string]*linked, error) {
	out := map[string]*linked{}
	for _, t := range targets() {
		packages, err := listPackages(root, t)
		if err != nil {
			return nil, err
		}
		for _, p := range programs() {
			seen := map[string]bool{}
			var walk func(path string)
			walk = func(path string) {
				pkg, ok := packages[path]
				if !ok || seen[path] {
					return
				}
				seen[path] = true
				if pkg.module != "" {
					m := out[pkg.module]
					if m == nil {
						m = &linked{path: pkg.module, version: pkg.version, dir: pkg.moduleDir, dirs: map[string]bool{}}
						out[pkg.module] = m
					}
					m.dirs[pkg.dir] = true
					if !slices.Contains(m.programs, p.name) {
						m.programs = append(m.programs, p.name)
					}
				}
				for _, imp := range pkg.imports {
					walk(imp)
				}
			}
			for path := range packages {
				if in, ok := strings.CutPrefix(path, own); ok && p.has(in) {
					walk(path)
				}
			}
			if len(seen) == 0 {
				return nil, fmt.Errorf("%s/%s: no package is %q", t.os, t.arch, p.name)
			}
		}
	}
	// The targets come one after the other, so that a module's programs may not be in order.
	for _, m := range out {
		found := m.programs
		m.programs = nil
		for _, p := range programs() {
			if slices.Contains(found, p.name) {
				m.programs = append(m.programs, p.name)
			}
		}
	}
	return out, nil
}

// listed is a package; module is empty for one of the standard library or of this module.
type listed struct {
	dir, module, version, moduleDir string
	imports                         []string
}

// listPackages returns all that the module in root needs on a system but for its tests.
func listPackages(root string, t target) (map[string]listed, error) {
	cmd := exec.Command("go", "list", "-deps", "-f",
		`{{.ImportPath}}	{{.Dir}}	{{with .Module}}{{if not .Main}}{{.Path}}	{{.Version}}	{{.Dir}}{{else}}		{{end}}{{else}}		{{end}}	{{join .Imports " "}}`, "./...")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOOS="+t.os, "GOARCH="+t.arch, "CGO_ENABLED="+t.cgo)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	b, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list for %s/%s: %w: %s", t.os, t.arch, err, stderr.String())
	}
	out := map[string]listed{}
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if len(f) != 6 {
			return nil, fmt.Errorf("go list for %s/%s: what it printed has another form: %q", t.os, t.arch, line)
		}
		out[f[0]] = listed{dir: f[1], module: f[2], version: f[3], moduleDir: f[4], imports: strings.Fields(f[5])}
	}
	return out, nil
}

// texts returns the licence texts and notices that come with the packages of m that are
// linked: of their directories, of those above, and of a directory for licences beside them.
// They are by the file's path in the module.
func (m *linked) texts() (map[string]string, error) {
	out := map[string]string{}
	seen := map[string]bool{}
	var look func(dir string, all bool) error
	look = func(dir string, all bool) error {
		if seen[dir] {
			return nil
		}
		seen[dir] = true
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			switch named := isNotice(e.Name()); {
			case e.IsDir() && named:
				err = look(path, true)
			case e.Type().IsRegular() && (all || named):
				err = m.read(path, out)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	for dir := range m.dirs {
		for ; ; dir = filepath.Dir(dir) {
			if err := look(dir, false); err != nil {
				return nil, err
			}
			if dir == m.dir || len(dir) <= len(m.dir) {
				break
			}
		}
	}
	return out, nil
}

func (m *linked) read(path string, out map[string]string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	rel, err := filepath.Rel(m.dir, path)
	if err != nil {
		return err
	}
	lines := strings.Split(strings.ReplaceAll(string(b), "\r\n", "\n"), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimRight(line, " \t")
	}
	out[filepath.ToSlash(rel)] = strings.Trim(strings.Join(lines, "\n"), "\n")
	return nil
}

// isNotice reports whether a name is that of a licence, a notice, or a directory of them.
func isNotice(name string) bool {
	name = strings.ToLower(name)
	switch filepath.Ext(name) {
	case ".go", ".s", ".c", ".h":
		return false
	}
	for _, word := range []string{"license", "licence", "copying", "notice"} {
		if strings.Contains(name, word) {
			return true
		}
	}
	return false
}

const noticesHeader = `Notices for third parties

Programs that import blockseal link the modules below, each with the licence that is named.
Their texts follow; those that several modules have word for word are printed once. Whoever
hands out such a program hands out these notices with it. blockseal itself is under the
licence in LICENSE.

The last column says which packages link the module, on any system: "block" is block,
vault/local and vault/audit, with all that they import; "blockprom", "blockhttp" and "postgres" are
the packages beneath block; "azure" is vault/azure; "examples" are the programs in examples.

Written by: go run ./internal/test/licence/notices

`

// goModule is a module with Go's own licence, word for word, which stands for the standard
// library and the runtime: they are in no module.
const goModule = "golang.org/x/sys"

// Notices returns the notices of all that programs link of other modules, and of Go itself,
// for the module in root.
func Notices(root string) ([]byte, error) {
	modules, err := linkedModules(root)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteString(noticesHeader)
	owners := map[string][]string{} // by text
	var order []string
	for _, path := range slices.Sorted(maps.Keys(modules)) {
		m := modules[path]
		name, err := Of(m.dir)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		fmt.Fprintf(&b, "%s %s\n    %s; %s\n", path, m.version, name, strings.Join(m.programs, ", "))
		texts, err := m.texts()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		for _, file := range slices.Sorted(maps.Keys(texts)) {
			text := texts[file]
			if owners[text] == nil {
				order = append(order, text)
			}
			owners[text] = append(owners[text], path+"/"+file)
			if path == goModule && file == "LICENSE" {
				owners[text] = append(owners[text], "the Go standard library and runtime")
			}
		}
	}
	if modules[goModule] == nil {
		return nil, fmt.Errorf("nothing links %s, whose text was that of Go's licence: %w", goModule, fs.ErrNotExist)
	}
	for _, text := range order {
		b.WriteString("\n" + strings.Repeat("=", 80) + "\n")
		for _, owner := range owners[text] {
			b.WriteString(owner + "\n")
		}
		b.WriteString(strings.Repeat("-", 80) + "\n\n" + text + "\n")
	}
	return b.Bytes(), nil
}
