package sealfs_test

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/keyring/sealfs"
)

func TestOptions(t *testing.T) {
	g := newRig(t, nil)
	for _, o := range []sealfs.Options{{ChunkSize: -1}, {ChunkSize: 256}, {ChunkSize: 4095}, {ChunkSize: 1 << 17}, {NoAccess: 9}} {
		_, err := sealfs.New(vfs.NewMem(), g.ring, &o)
		require.ErrorContains(t, err, "sealfs: Options.")
	}
	_, err := sealfs.New(nil, g.ring, nil)
	require.Error(t, err)
	_, err = sealfs.New(vfs.NewMem(), nil, nil)
	require.Error(t, err)
	fs, err := sealfs.New(vfs.NewMem(), g.ring, &sealfs.Options{Layout: func(base string) sealfs.Layout {
		if base == "odd" {
			return 7
		}
		return sealfs.Log
	}})
	require.NoError(t, err)
	_, err = fs.Create("odd", vfs.WriteCategoryUnspecified)
	require.ErrorContains(t, err, "Layout(7)")
	// A layout that was chosen counts, not the name.
	write(t, fs, "1.sst", content(1, 100), content(2, 100))
	require.Equal(t, string(content(1, 100))+string(content(2, 100)), string(mustRead(t, g.over(fs.Unwrap()), "1.sst")))
}

// Each file of Pebble's is written in the layout for how it is written.
func TestPebbleLayout(t *testing.T) {
	for base, want := range map[string]sealfs.Layout{
		"000001.log": sealfs.Log, "000001-002.log": sealfs.Log, "MANIFEST-000002": sealfs.Log, "REMOTE-OBJ-CATALOG-000003": sealfs.Log,
		"000004.sst": sealfs.Once, "000005.blob": sealfs.Once, "OPTIONS-000006": sealfs.Once, "temporary.000006.dbtmp": sealfs.Once, "x": sealfs.Once,
		"LOCK": sealfs.Empty, "marker.manifest.000001.MANIFEST-000002": sealfs.Empty, "SHARED-CACHE-001": sealfs.Pages,
	} {
		require.Equal(t, want, sealfs.PebbleLayout(base), base)
	}
	require.Equal(t, "log once pages empty Layout(0)", fmt.Sprint(sealfs.Log, " ", sealfs.Once, " ", sealfs.Pages, " ", sealfs.Empty, " ", sealfs.Layout(0)))
	require.Equal(t, "Wait WaitOutage Fail NoAccess(3)", fmt.Sprint(sealfs.Wait, " ", sealfs.WaitOutage, " ", sealfs.Fail, " ", sealfs.NoAccess(3)))
}
