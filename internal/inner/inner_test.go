package inner_test

import (
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/inner"
)

// A program outside cannot name Block. Nor is there a value without a name that it could give in the
// place of one.
func TestBlockCannotBeWrittenOutside(t *testing.T) {
	block := reflect.TypeFor[inner.Block]()
	for _, v := range []any{struct{}{}, struct{ _ struct{} }{}} {
		require.False(t, reflect.TypeOf(v).AssignableTo(block), "%T", v)
	}
}
