package licence

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestClassify(t *testing.T) {
	require.Equal(t, "", classify("All rights reserved. Do not copy."))
	require.Equal(t, "", classify("GNU GENERAL PUBLIC LICENSE\nVersion 3, 29 June 2007"))
	require.Equal(t, "", classify("This Business Source License permits ..."))
	require.Equal(t, "Apache-2.0", classify("   Apache License\n   Version 2.0, January 2004"))
	require.Equal(t, "MPL-2.0", classify("Mozilla Public License Version 2.0\n ... the GNU General Public License, Version 2.0"))
}
