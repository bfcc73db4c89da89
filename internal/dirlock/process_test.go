package dirlock

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/test/load"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

// A user is a process that uses the store in a directory, under whatever name it is told:
// this one, or a second one that answers requests. What it answers is "ok", "locked", or
// the text of an error.
type user struct {
	dir   load.Dir
	vault func() (*local.Vault, error) // opened once, and asked for by several goroutines

	mu   sync.Mutex
	open []*block.Store
}

func newUser(d load.Dir) *user { return &user{dir: d, vault: sync.OnceValues(d.OpenVault)} }

// request is a line of JSON on the second process's standard input, and its answer, a list
// of strings, one on its standard output.
type request struct {
	Do    string
	Paths []string
	Round int
}

// puts is how many blocks a request "put" puts.
const puts = 10

func blockID(round, i int) []byte { return fmt.Appendf(nil, "round %d, block %d", round, i) }

func (u *user) answer(ctx context.Context, r request) []string {
	out := make([]string, len(r.Paths))
	var wg sync.WaitGroup
	for i, path := range r.Paths {
		wg.Go(func() { out[i] = word(u.do(ctx, r.Do, path, r.Round)) })
	}
	wg.Wait()
	return out
}

func word(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, block.ErrLocked):
		return "locked"
	}
	return err.Error()
}

func (u *user) do(ctx context.Context, what, path string, round int) error {
	switch what {
	case "write", "read": // opens, and holds open
		s, err := u.openStore(ctx, path, what == "read")
		if err != nil {
			return err
		}
		u.mu.Lock()
		defer u.mu.Unlock()
		u.open = append(u.open, s)
		return nil
	case "inspect":
		_, err := block.Inspect(ctx, path, nil)
		return errors.Join(err, second(block.InspectKeyring(path, nil)))
	case "read LOCK": // as whoever copies the files
		return second(os.ReadFile(filepath.Join(path, "LOCK")))
	case "put":
		for i := range puts {
			if err := u.held().Put(ctx, blockID(round, i), blockID(round, i)); err != nil {
				return err
			}
		}
		return nil
	case "checkpoint":
		return u.held().Checkpoint(ctx, path+"-copy-"+fmt.Sprint(round))
	case "check": // opens, and looks for what was put
		s, err := u.openStore(ctx, path, false)
		if err != nil {
			return err
		}
		return errors.Join(check(ctx, s, round), s.Close())
	case "drop privileges":
		return dropPrivileges()
	case "close":
		u.mu.Lock()
		defer u.mu.Unlock()
		var err error
		for _, s := range u.open {
			err = errors.Join(err, s.Close())
		}
		u.open = nil
		return err
	}
	return fmt.Errorf("no such request: %q", what)
}

func second[T any](_ T, err error) error { return err }

func (u *user) held() *block.Store {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.open[0]
}

// openStore opens the store under a name that is given to it as it is.
func (u *user) openStore(ctx context.Context, path string, readOnly bool) (*block.Store, error) {
	v, err := u.vault()
	if err != nil {
		return nil, err
	}
	return block.Open(ctx, path, kek.New(v.As(load.Identity), vault.KeyID{Name: "customer"}), &block.Options{
		ReadOnly: readOnly, RequireAccess: true, Pebble: block.PebbleOptions{MemTable: 1 << 20, BlockCache: 1 << 20}, RowCache: -1, RecordCache: 1 << 16})
}

// check reads what the round put.
func check(ctx context.Context, s *block.Store, round int) error {
	for i := range puts {
		got, err := s.Get(ctx, blockID(round, i), nil)
		if err != nil || !bytes.Equal(got, blockID(round, i)) {
			return errors.Join(err, fmt.Errorf("%q, which was acknowledged, reads as %q", blockID(round, i), got))
		}
	}
	return nil
}

const envDir = "BLOCKSEAL_DIRLOCK_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(envDir); dir != "" {
		u := newUser(load.Dir(dir))
		in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
		for {
			var r request
			if err := in.Decode(&r); errors.Is(err, io.EOF) {
				os.Exit(0)
			} else if err != nil {
				panic(err)
			}
			if err := out.Encode(u.answer(context.Background(), r)); err != nil {
				panic(err)
			}
		}
	}
	os.Exit(m.Run())
}

// process is a second process.
type process struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	err bytes.Buffer
}

// start starts a process whose working directory is d. It ends with the test, or with end
// or kill.
func start(t testing.TB, d load.Dir) *process {
	exe, err := os.Executable()
	require.NoError(t, err)
	p := &process{t: t, cmd: exec.Command(exe)}
	p.cmd.Dir, p.cmd.Stderr = string(d), &p.err
	p.cmd.Env = append(os.Environ(), envDir+"="+string(d))
	p.in, err = p.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	p.out = bufio.NewReader(out)
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			p.kill()
		}
	})
	return p
}

// ask returns the answers to a request, one for each path.
func (p *process) ask(r request) (answers []string) {
	p.t.Helper()
	err := json.NewEncoder(p.in).Encode(r)
	if err == nil {
		var line []byte
		if line, err = p.out.ReadBytes('\n'); err == nil {
			err = json.Unmarshal(line, &answers)
		}
	}
	if err != nil {
		p.t.Errorf("the second process: %v: %s", err, p.err.String())
	}
	return answers
}

// one is ask for one path.
func (p *process) one(do, path string) string {
	p.t.Helper()
	if a := p.ask(request{Do: do, Paths: []string{path}}); len(a) == 1 {
		return a[0]
	}
	return "no answer"
}

// kill ends the process as kill -9 does, whatever it is doing.
func (p *process) kill() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

// prepare makes a vault and a store, and returns this process as its user.
func prepare(t testing.TB) *user {
	d, err := load.Prepare(context.Background(), t.TempDir())
	require.NoError(t, err)
	u := newUser(d)
	t.Cleanup(func() {
		require.NoError(t, u.do(context.Background(), "close", "", 0))
		v, err := u.vault()
		require.NoError(t, err)
		require.NoError(t, v.Close())
	})
	return u
}

// one is what process.one is, of this process.
func (u *user) one(do, path string) string { return word(u.do(context.Background(), do, path, 0)) }
