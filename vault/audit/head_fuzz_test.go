package audit

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzParseHead holds that a head that parses prints as it was written: each has one
// spelling.
func FuzzParseHead(f *testing.F) {
	_, head := chainLines(origin, numbered(3)...)
	f.Add(head.String())
	f.Add(Head{}.String())
	f.Add(strings.ToUpper(head.String()))
	f.Add(head.String() + " ")
	f.Add("0" + head.String())
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		h, err := ParseHead(s)
		if err != nil {
			require.Zero(t, h)
			return
		}
		require.Equal(t, s, h.String())
	})
}
