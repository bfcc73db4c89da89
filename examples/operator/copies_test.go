package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/test/unclose"
)

// A copy is copied elsewhere whole, or not at all.
func TestCopyACopy(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	dir := g.store("s", 3)
	g.ok("store", "checkpoint", dir, g.path("copy"))
	require.Contains(t, g.ok("store", "copies", "copy", g.path("copy"), g.path("elsewhere")), "which needs ")
	g.ok("store", "revalidate", g.path("elsewhere"))
	require.Equal(t, "record a", g.ok("store", "get", g.path("elsewhere"), "a"))
	g.ok("store", "verify", g.path("elsewhere"))

	g.fails(exitFailure, "file exists", "store", "copies", "copy", g.path("copy"), g.path("elsewhere"))
	markers, err := filepath.Glob(filepath.Join(g.path("copy"), "marker.manifest.*"))
	require.NoError(t, err)
	require.Len(t, markers, 1)
	require.NoError(t, os.Remove(markers[0]))
	g.fails(exitVerification, filepath.Base(markers[0])+" is missing", "store", "copies", "copy", g.path("copy"), g.path("nowhere"))
	require.NoDirExists(t, g.path("nowhere"))
}

// What is moved along is said before it is; and where the store's register of copies was
// taken away no command says that a KEK version is not needed.
func TestPlanAndRegister(t *testing.T) {
	g := newRig(t)
	dir := g.store("s", 3)
	old := version(g.list("key", "list")[0])
	g.ok("store", "checkpoint", dir, g.path("copy"))
	g.ok("key", "rotate", "customer")
	g.ok("store", "rotate", "kek", dir)
	require.Contains(t, g.stderr, "moves along, if it is there: "+g.path("copy")+", copy ")
	require.Equal(t, true, g.list("store", "copies", "list", dir)[0].(map[string]any)["current"])
	require.Equal(t, false, g.object("store", "inspect", dir)["incomplete"])

	db, err := pebble.Open(dir, &pebble.Options{FormatMajorVersion: pebble.FormatNewest})
	require.NoError(t, err)
	require.NoError(t, db.Delete([]byte("\x01\x00\x00\x00\x00register"), pebble.Sync))
	require.NoError(t, db.Close())
	require.NoError(t, unclose.Store(nil, dir))
	require.Contains(t, g.fails(exitVerification, "is not whole", "store", "usage", dir), "the keyring")
	require.Contains(t, g.fails(exitVerification, "not all", "store", "usage", dir, "--open"), "the keyring")
	g.fails(exitRefused, "its register of them is not whole", "key", "disable", "customer/"+old)
	require.Contains(t, g.ok("store", "inspect", dir), "versions may be missing")
	g.ok("key", "rotate", "customer")
	require.Contains(t, g.ok("store", "rotate", "kek", dir), "may be needed by copies that the store does not know")
	require.Contains(t, g.ok("store", "erase", dir), "KEK versions or copies may be missing above")
}
