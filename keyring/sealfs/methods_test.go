package sealfs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// Every method of Pebble's interfaces is written out for every type, and no type embeds anything: a
// method that is inherited from the file beneath passes plaintext through, and one that Pebble adds
// would be inherited without anybody knowing.
func TestEveryMethodIsWrittenOut(t *testing.T) {
	written := map[string]map[string]bool{}
	entries, err := os.ReadDir(".")
	require.NoError(t, err)
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), e.Name(), nil, 0)
		require.NoError(t, err)
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv != nil {
				star, ok := fn.Recv.List[0].Type.(*ast.StarExpr)
				if !ok {
					continue
				}
				of := star.X.(*ast.Ident).Name
				if written[of] == nil {
					written[of] = map[string]bool{}
				}
				written[of][fn.Name.Name] = true
			}
		}
	}
	file := reflect.TypeFor[vfs.File]()
	for _, c := range []struct {
		of   any
		face reflect.Type
	}{
		{&FS{}, reflect.TypeFor[vfs.FS]()},
		{&logWriter{}, file}, {&logReader{}, file}, {&onceWriter{}, file}, {&onceReader{}, file},
		{&pagesHandle{}, file}, {&emptyFile{}, file}, {&dirFile{}, file},
		{&fileInfo{}, reflect.TypeFor[vfs.FileInfo]()},
	} {
		typ := reflect.TypeOf(c.of).Elem()
		require.True(t, reflect.PointerTo(typ).Implements(c.face))
		require.Greater(t, c.face.NumMethod(), 5)
		for i := range c.face.NumMethod() {
			require.True(t, written[typ.Name()][c.face.Method(i).Name], "%s.%s is not written out", typ.Name(), c.face.Method(i).Name)
		}
		for i := range typ.NumField() {
			require.False(t, typ.Field(i).Anonymous, "%s embeds %s", typ.Name(), typ.Field(i).Name)
		}
	}
	// What this package knows of Pebble's interfaces. A new method takes thought: what it is to do
	// with sealed bytes.
	require.Equal(t, 18, reflect.TypeFor[vfs.FS]().NumMethod())
	require.Equal(t, 12, file.NumMethod())
}
