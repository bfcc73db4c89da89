package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// watched is the operating system's disk, and what was done to it in order.
type watched struct {
	system
	did   []string
	fails string // an operation that fails, as it is written in did
}

var errBroken = errors.New("i/o error")

func (w *watched) saw(what, path string) error {
	what += " " + filepath.Base(path)
	w.did = append(w.did, what)
	if what == w.fails {
		return errBroken
	}
	return nil
}

func (w *watched) open(path string, flags int, mode os.FileMode) (diskFile, error) {
	if err := w.saw("open", path); err != nil {
		return nil, err
	}
	f, err := w.system.open(path, flags, mode)
	if err != nil {
		return nil, err
	}
	return &watchedFile{f, filepath.Base(path), w}, nil
}

func (w *watched) rename(from, to string) error {
	if err := w.saw("rename", to); err != nil {
		return err
	}
	return w.system.rename(from, to)
}

func (w *watched) syncDir(dir string) error {
	if err := w.saw("syncDir", dir); err != nil {
		return err
	}
	return w.system.syncDir(dir)
}

type watchedFile struct {
	diskFile
	name string
	w    *watched
}

func (f *watchedFile) Write(p []byte) (int, error) {
	if err := f.w.saw("write", f.name); err != nil {
		return 0, err
	}
	return f.diskFile.Write(p)
}

func (f *watchedFile) Sync() error {
	if err := f.w.saw("sync", f.name); err != nil {
		return err
	}
	return f.diskFile.Sync()
}

// What the tool says it wrote survives a crash of the machine: the bytes before they
// get a name that counts, and the name.
func TestWhatIsKeptIsDurable(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	dir := g.store("s", 1)
	g.env["BLOCKSEAL_ESCROW_PASSPHRASE"] = "a passphrase in the safe"
	require.NoError(t, os.Mkdir(g.path("safe"), 0o700))
	fresh := func(name string) []string {
		return []string{"open " + name, "write " + name, "sync " + name, "syncDir safe"}
	}
	replaced := func(name, dir string) []string {
		return []string{"open " + name + ".new", "write " + name + ".new", "sync " + name + ".new", "rename " + name, "syncDir " + dir}
	}
	base := filepath.Base(g.dir)
	g.env["BLOCKSEAL_AUDIT"] = g.path("log")
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"key", "backup", "customer", "--out", g.path("safe/backup")}, fresh("backup")},
		{[]string{"vault", "backup-secret", "--out", g.path("safe/secret")}, fresh("secret")},
		{[]string{"vault", "escrow", "--kdf", "pbkdf2", "--kdf-passes", "1000", "--out", g.path("safe/escrow")}, fresh("escrow")},
		{[]string{"vault", "init", "--vault", g.path("v"), "--kdf", "pbkdf2", "--kdf-passes", "1000", "--backup-secret-out", g.path("safe/other")}, fresh("other")},
		{[]string{"store", "get", dir, "a", "--out", g.path("safe/a")}, fresh("a")},
		{[]string{"store", "erase", dir, "--receipt", g.path("safe/receipt")}, fresh("receipt")},
		{[]string{"audit", "verify", g.path("log"), "--save-head", g.path("safe/head")}, replaced("head", "safe")},
		{[]string{"vault", "forget-store", dir}, replaced("vault.stores", base)},
		{[]string{"store", "revalidate", dir}, replaced("vault.stores", base)}, // remembers it
	} {
		w := &watched{}
		g.disk = w
		g.ok(c.args...)
		require.Equal(t, c.want, w.did, "%v", c.args)
	}
	require.Equal(t, dir+"\n", g.ok("vault", "stores"))

	// Whatever fails, there is no half of it.
	for _, step := range fresh("again") {
		g.disk = &watched{fails: step}
		g.fails(exitFailure, errBroken.Error(), "vault", "backup-secret", "--out", g.path("safe/again"))
		require.NoFileExists(t, g.path("safe/again"), step)
	}
	for _, step := range replaced("vault.stores", base) {
		g.disk = &watched{fails: step}
		require.NoError(t, os.WriteFile(g.path("vault.stores"), []byte(fmt.Sprintf("%q\n", dir)), 0o600))
		g.fails(exitFailure, errBroken.Error(), "vault", "forget-store", dir)
		require.NoFileExists(t, g.path("vault.stores.new"), step)
		g.disk = nil
		want := dir + "\n"
		if strings.HasPrefix(step, "syncDir") {
			want = "" // it is done, and may come undone
		}
		require.Equal(t, want, g.ok("vault", "stores"), step)
	}
}

// Of many who change the list of stores at once nobody undoes another.
func TestStoresAreRememberedAtOnce(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "vault")
	a := &app{disk: system{}}
	const each, many = 8, 8
	store := func(i, j int) string { return fmt.Sprintf("/store/%d/%d", i, j) }
	for i := range many {
		for j := range each {
			require.NoError(t, a.remember(dir, store(i, j)))
		}
	}
	var all sync.WaitGroup
	for i := range many {
		all.Go(func() {
			for j := range each {
				if err := errors.Join(a.forget(dir, store(i, j)), a.remember(dir, store(many+i, j)), a.remember(dir, store(many+i, j))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	got, err := knownStores(dir)
	require.NoError(t, err)
	var want []string
	for i := range many {
		for j := range each {
			want = append(want, store(many+i, j))
		}
	}
	require.ElementsMatch(t, want, got)
}
