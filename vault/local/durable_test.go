package local

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
)

// watched is the operating system's files, and what was done to them in order.
type watched struct {
	system
	did   []string
	fails map[string]error // instead of an operation, as it is written in did
}

func (w *watched) saw(what, path string) error {
	what += " " + filepath.Base(path)
	w.did = append(w.did, what)
	return w.fails[what]
}

func (w *watched) mkdir(dir string) error {
	if err := w.saw("mkdir", dir); err != nil {
		return err
	}
	return w.system.mkdir(dir)
}

func (w *watched) create(path string) (file, error) {
	if err := w.saw("create", path); err != nil {
		return nil, err
	}
	f, err := w.system.create(path)
	return &watchedFile{f, filepath.Base(path), w}, err
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
	file
	name string
	w    *watched
}

func (f *watchedFile) Write(p []byte) (int, error) {
	if err := f.w.saw("write", f.name); err != nil {
		return 0, err
	}
	return f.file.Write(p)
}

func (f *watchedFile) Sync() error {
	if err := f.w.saw("sync", f.name); err != nil {
		return err
	}
	return f.file.Sync()
}

func (w *watched) take() []string {
	did := w.did
	w.did = nil
	return did
}

// aChange is what makes one durable: the new file's bytes before it takes the old one's
// name, and the name before the change is called made.
func aChange() []string {
	return []string{"create vault.tmp", "write vault.tmp", "sync vault.tmp", "rename vault", "syncDir v"}
}

// Whatever was called made survives a crash of the machine: so does the whole path to
// the vault.
func TestChangesAreDurable(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	require.NoError(t, system{}.mkdir(root))
	w := &watched{}
	o := &Options{InsecureKDF: true, KDF: KDF{Algorithm: PBKDF2, Passes: 10}, files: w}
	dir := filepath.Join(root, "a", "b", "v")
	v, err := Create(dir, []byte("only a test"), o)
	require.NoError(t, err)
	want := append([]string{"mkdir a", "syncDir root", "mkdir b", "syncDir a", "mkdir v"}, aChange()...)
	require.Equal(t, append(want, "syncDir b"), w.take())

	require.NoError(t, v.Grant(t.Context(), "ingest", vault.OpGet))
	require.Equal(t, aChange(), w.take())
	require.NoError(t, v.Close())
	v, err = Open(dir, []byte("only a test"), o)
	require.NoError(t, err)
	require.NoError(t, v.ChangePassphrase(t.Context(), []byte("another"), o.KDF))
	require.Equal(t, aChange(), w.take())
	require.NoError(t, v.Close())

	// Whoever made the directory may have died before its name was durable.
	empty := filepath.Join(root, "empty")
	require.NoError(t, system{}.mkdir(empty))
	v, err = Create(empty, []byte("only a test"), o)
	require.NoError(t, err)
	did := w.take()
	require.Equal(t, "syncDir root", did[len(did)-1])
	require.NoError(t, v.Close())
}

// A sync that fails is no change that was made: before the rename the old state stays,
// after it the error says that a crash may undo it.
func TestSyncsThatFail(t *testing.T) {
	broken := errors.New("i/o error")
	dir := filepath.Join(t.TempDir(), "v")
	w := &watched{}
	v, err := Create(dir, []byte("only a test"), &Options{InsecureKDF: true, KDF: KDF{Algorithm: PBKDF2, Passes: 10}, files: w})
	require.NoError(t, err)
	defer v.Close()
	for _, step := range aChange() {
		w.fails = map[string]error{step: broken}
		before, err := v.Info(t.Context())
		require.NoError(t, err)
		err = v.Grant(t.Context(), "ingest", vault.OpGet)
		require.ErrorIs(t, err, broken, step)
		made := step == "syncDir v"
		require.Equal(t, made, errors.Is(err, errUncertain), step)
		after, err := v.Info(t.Context())
		require.NoError(t, err)
		require.Equal(t, made, after.Generation > before.Generation, step)
		require.NoFileExists(t, filepath.Join(dir, tempName), step)
	}
	w.fails = map[string]error{"syncDir x": broken}
	_, err = Create(filepath.Join(dir, "..", "x", "v"), []byte("only a test"), &Options{InsecureKDF: true, KDF: KDF{Algorithm: PBKDF2, Passes: 10}, files: w})
	require.ErrorIs(t, err, broken)
}

// Between the removal of what is under the temporary file's name and its making somebody
// may have put something there again.
func TestTheTemporaryFileMustBeNew(t *testing.T) {
	dir := t.TempDir()
	there, link := filepath.Join(dir, "there"), filepath.Join(dir, "link")
	require.NoError(t, os.WriteFile(there, []byte("precious"), 0o600))
	require.NoError(t, os.Symlink(filepath.Join(dir, "missing"), link))
	for _, path := range []string{there, link} {
		_, err := openNew(path)
		require.ErrorIs(t, err, os.ErrExist)
	}
	require.NoFileExists(t, filepath.Join(dir, "missing"))
}
