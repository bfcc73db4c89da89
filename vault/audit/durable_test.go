package audit

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// watched is the operating system's files, and what was done to them in order.
type watched struct {
	system
	did []string
}

func (w *watched) saw(what, path string) {
	w.did = append(w.did, what+" "+filepath.Base(path))
}

func (w *watched) mkdir(dir string) error {
	w.saw("mkdir", dir)
	return w.system.mkdir(dir)
}

func (w *watched) open(path string, create bool) (file, error) {
	what := "open"
	if create {
		what = "create"
	}
	w.saw(what, path)
	f, err := w.system.open(path, create)
	return &watchedFile{f, filepath.Base(path), w}, err
}

func (w *watched) rename(from, to string) error {
	w.saw("rename", to)
	return w.system.rename(from, to)
}

func (w *watched) remove(path string) error {
	w.saw("remove", path)
	return w.system.remove(path)
}

func (w *watched) syncDir(dir string) error {
	w.saw("syncDir", dir)
	return w.system.syncDir(dir)
}

type watchedFile struct {
	file
	name string
	w    *watched
}

func (f *watchedFile) WriteAt(p []byte, off int64) (int, error) {
	f.w.saw("write", f.name)
	return f.file.WriteAt(p, off)
}

func (f *watchedFile) Truncate(size int64) error {
	f.w.saw("truncate", f.name)
	return f.file.Truncate(size)
}

func (f *watchedFile) Sync() error {
	f.w.saw("sync", f.name)
	return f.file.Sync()
}

func (w *watched) take() []string {
	did := w.did
	w.did = nil
	return did
}

// Whatever Record has returned nil for survives a crash of the machine: the record,
// the name of the file that it is in, and the names of the directories.
func TestRecordsAreDurable(t *testing.T) {
	parent := filepath.Join(t.TempDir(), "parent")
	require.NoError(t, system{}.mkdir(parent))
	dir := filepath.Join(parent, "log")
	w := &watched{}
	log, err := openDir(dir+"/", smallFiles, w)
	require.NoError(t, err)
	first, second := fmt.Sprintf(fileFormat, 1), fmt.Sprintf(fileFormat, 4)
	require.Equal(t, []string{"mkdir log", "remove torn", "syncDir parent", "create " + first, "syncDir log", "write " + first, "sync " + first}, w.take())
	for i := range 3 {
		add(t, log, record(i+1))
		want := []string{"write " + first, "sync " + first}
		if i == 2 {
			want = []string{"create " + second, "syncDir log", "write " + second, "sync " + second}
		}
		require.Equal(t, want, w.take())
	}
	require.NoError(t, log.Close())

	// A log that goes on, and one whose last record is unfinished.
	log, err = openDir(dir, smallFiles, w)
	require.NoError(t, err)
	require.Equal(t, []string{"mkdir log", "remove torn", "open " + second, "write " + second, "sync " + second}, w.take())
	_, err = log.out.(*dirSink).file.WriteAt([]byte("{"), log.out.(*dirSink).size)
	require.NoError(t, err)
	require.NoError(t, log.Close())
	w.take()
	log, err = openDir(dir, smallFiles, w)
	require.NoError(t, err)
	require.Equal(t, []string{
		"mkdir log", "remove torn.new", "create torn.new", "write torn.new", "sync torn.new", "rename torn", "syncDir log",
		"open " + second, "truncate " + second, "sync " + second, "write " + second, "sync " + second, "remove torn",
	}, w.take(), "what is cut off is durable elsewhere before, and until it is quoted")
	require.NoError(t, log.Close())

	// A directory that somebody made and died.
	require.NoError(t, system{}.mkdir(filepath.Join(parent, "empty")))
	log, err = openDir(filepath.Join(parent, "empty"), smallFiles, w)
	require.NoError(t, err)
	require.Equal(t, "syncDir parent", w.take()[2])
	require.NoError(t, log.Close())
}
