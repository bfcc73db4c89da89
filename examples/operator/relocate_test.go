package main

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// second makes another vault, which restores the backups of the first.
func (g *rig) second() {
	g.ok("vault", "backup-secret", "--out", g.path("secret"))
	g.ok("vault", "init", "--vault", g.path("second"), "--kdf", "pbkdf2", "--kdf-passes", "1000", "--backup-secret-file", g.path("secret"))
}

// The vault is lost and its key was restored in another one: one command, and the store and
// its copies are there.
func TestStoreRelocate(t *testing.T) {
	for _, wrapping := range []string{"keyring", "kek"} {
		t.Run(wrapping, func(t *testing.T) {
			g := newRig(t)
			g.ok("store", "init", g.path("s"), "--key", "customer", "--wrapping", wrapping)
			g.stdin = "record a"
			g.ok("store", "put", g.path("s"), "a")
			g.ok("store", "checkpoint", g.path("s"), g.path("copy"))
			g.ok("store", "checkpoint", g.path("s"), g.path("away"))
			g.second()
			second := []string{"--vault", g.path("second"), "--identity", "store"}
			with := func(args ...string) []string { return append(args, second...) }
			g.ok("grant", "add", "store", "get", "wrapKey", "unwrapKey", "--vault", g.path("second"))

			g.fails(exitRefused, "if that has the same key now: store relocate", with("store", "get", g.path("s"), "a")...)
			g.fails(exitRefused, "key not found", with("store", "relocate", g.path("s"))...)
			require.Equal(t, "record a", g.ok("store", "get", g.path("s"), "a"), "it is where it was")

			g.ok("key", "backup", "customer", "--out", g.path("customer.backup"))
			g.ok("key", "restore", g.path("customer.backup"), "--vault", g.path("second"))
			require.NoError(t, os.Rename(g.path("vault"), g.path("lost")))
			require.NoError(t, os.Rename(g.path("away"), g.path("elsewhere")))
			out := g.fails(exitFailure, "still on ", with("store", "relocate", g.path("s"))...)
			require.Regexp(t, "copy +"+g.path("copy"), out)
			require.Contains(t, out, "is not at "+g.path("away")+" any more")
			require.Contains(t, g.ok(with("store", "relocate", g.path("elsewhere"))...), "to")
			require.Equal(t, "record a", g.ok(with("store", "get", g.path("s"), "a")...))
			require.Contains(t, g.ok("vault", "stores", "--vault", g.path("second")), g.path("s"))
			g.ok(with("store", "revalidate", g.path("copy"))...)
			g.ok(with("store", "revalidate", g.path("elsewhere"))...)
			require.Equal(t, "record a", g.ok(with("store", "get", g.path("elsewhere"), "a")...))
			g.fails(exitFailure, "nothing: each version is there already", with("store", "relocate", g.path("s"))...)
		})
	}
}

// A key whose version expired before it was rotated: what the text says works.
func TestStoreOnAnExpiredVersion(t *testing.T) {
	g := newRig(t)
	dir := g.store("s", 1)
	g.ok("key", "expire", "customer", "--at", "-1h", "--force")
	require.Contains(t, g.fails(exitRefused, "the time was taken to be ", "store", "state", dir), "RotateKEK moves it there")
	g.fails(exitRefused, "the key has no newer version", "store", "rotate", "kek", dir)
	g.ok("key", "rotate", "customer")
	require.Contains(t, g.ok("store", "rotate", "kek", dir), "to")
	require.Equal(t, "record a", g.ok("store", "get", dir, "a"))
}
