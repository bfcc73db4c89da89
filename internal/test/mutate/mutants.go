package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
)

// mutant is one mistake: what stands from one offset of a file to another is replaced.
type mutant struct {
	file     string
	line     int
	from, to int
	text     string // in its place
	what     string // the mistake, in words
}

// String is the mutant as it is reported.
func (m mutant) String() string { return fmt.Sprintf("%s:%d: %s", m.file, m.line, m.what) }

// apply returns the file's source with the mistake in it.
func (m mutant) apply(src []byte) []byte {
	return slices.Concat(src[:m.from], []byte(m.text), src[m.to:])
}

// mutantsOf returns the mistakes that can be made in a source file, in its order. Each
// leaves a program that compiles: what is left out is put under a condition that is false,
// so that it still uses its variables and imports.
func mutantsOf(file string, src []byte) ([]mutant, error) {
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, file, src, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	w := &walk{file: file, src: src, set: set}
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil {
			w.function(fn.Type, fn.Body)
		}
	}
	slices.SortStableFunc(w.found, func(a, b mutant) int { return a.from - b.from })
	return w.found, nil
}

type walk struct {
	file  string
	src   []byte
	set   *token.FileSet
	found []mutant
}

func (w *walk) offset(p token.Pos) int { return w.set.Position(p).Offset }

func (w *walk) source(n ast.Node) string { return string(w.src[w.offset(n.Pos()):w.offset(n.End())]) }

func (w *walk) add(from, to token.Pos, text, format string, args ...any) {
	w.found = append(w.found, mutant{file: w.file, line: w.set.Position(from).Line, from: w.offset(from), to: w.offset(to),
		text: text, what: fmt.Sprintf(format, args...)})
}

// function walks through a function's body; one within it returns for itself.
func (w *walk) function(of *ast.FuncType, body *ast.BlockStmt) {
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			w.function(n.Type, n.Body)
			return false
		case *ast.IfStmt:
			w.add(n.Cond.Pos(), n.Cond.End(), "!("+w.source(n.Cond)+")", "the condition is turned round: %s", w.source(n.Cond))
		case *ast.BinaryExpr:
			w.operator(n)
		case *ast.BlockStmt:
			w.statements(n.List)
		case *ast.CaseClause:
			w.statements(n.Body)
		case *ast.CommClause:
			w.statements(n.Body)
		case *ast.ReturnStmt:
			w.result(of, n)
		}
		return true
	})
}

// operator changes a comparison by one, and an "and" to an "or".
func (w *walk) operator(e *ast.BinaryExpr) {
	other, ok := map[token.Token]token.Token{
		token.LSS: token.LEQ, token.LEQ: token.LSS, token.GTR: token.GEQ, token.GEQ: token.GTR,
		token.EQL: token.NEQ, token.NEQ: token.EQL, token.LAND: token.LOR, token.LOR: token.LAND,
	}[e.Op]
	if ok {
		w.add(e.OpPos, e.OpPos+token.Pos(len(e.Op.String())), other.String(), "%s in the place of %s: %s", other, e.Op, w.source(e))
	}
}

// statements leaves out calls: of clear, Destroy, Sync and Unlock, for example, and those
// that are deferred.
func (w *walk) statements(list []ast.Stmt) {
	for _, s := range list {
		var call ast.Expr
		switch s := s.(type) {
		case *ast.ExprStmt:
			call = s.X
		case *ast.DeferStmt:
			call = s.Call
		}
		if call == nil {
			continue
		}
		if c, ok := call.(*ast.CallExpr); ok && isPanic(c) {
			continue // the function may have no other end
		}
		w.add(s.Pos(), s.End(), "if false {\n"+w.source(s)+"\n}", "left out: %s", first(w.source(s)))
	}
}

func isPanic(c *ast.CallExpr) bool {
	name, ok := c.Fun.(*ast.Ident)
	return ok && name.Name == "panic"
}

// result drops the error that a function returns.
func (w *walk) result(of *ast.FuncType, s *ast.ReturnStmt) {
	if of.Results == nil || len(s.Results) == 0 {
		return
	}
	fields := of.Results.List
	last, ok := fields[len(fields)-1].Type.(*ast.Ident)
	if !ok || last.Name != "error" || len(s.Results) != of.Results.NumFields() {
		return // it may return what another function returns
	}
	e := s.Results[len(s.Results)-1]
	if name, ok := e.(*ast.Ident); ok && name.Name == "nil" {
		return
	}
	// What the error is made of is still used, and is not nil.
	w.add(e.Pos(), e.End(), "func(error) error { return nil }("+w.source(e)+")", "the error is dropped: %s", first(w.source(s)))
}

// first is the first line of a statement.
func first(s string) string {
	for i := range s {
		if s[i] == '\n' {
			return s[:i] + " ..."
		}
	}
	return s
}
