package postgres_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/block/postgres"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

// Another process is this program once more. It opens the schema and the file vault that its
// environment names, and does what it is told line by line: a line of its answer for each, which
// begins with "ok" or "error".
const childOf = "BLOCKSEAL_TEST_CHILD"

const passphrase = "only a test"

// child is another process's main function, and returns false in this one.
func child() bool {
	dir, is := os.LookupEnv(childOf)
	if !is {
		return false
	}
	if err := obey(context.Background(), dir, os.Getenv(childOf+"_CONN"), os.Getenv(childOf+"_SCHEMA")); err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	return true
}

func fileVault(dir string) (*local.Vault, *kek.KEK, error) {
	v, err := local.Open(filepath.Join(dir, "vault"), []byte(passphrase), &local.Options{InsecureKDF: true})
	if err != nil {
		return nil, nil, err
	}
	return v, kek.New(v, vault.KeyID{Vault: v.ID(), Name: "customer"}), nil
}

func obey(ctx context.Context, dir, conn, schema string) (err error) {
	v, k, err := fileVault(dir)
	if err != nil {
		return err
	}
	c, err := pgxpool.ParseConfig(conn)
	if err != nil {
		return err
	}
	postgres.Configure(c)
	pool, err := pgxpool.NewWithConfig(ctx, c)
	if err != nil {
		return err
	}
	db, err := postgres.Open(ctx, pool, &postgres.Options{Schema: schema})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close(), v.Close()); pool.Close() }()
	o := &block.Options{}
	if file, is := os.LookupEnv(childOf + "_CLOCK"); is {
		o.Keyring.Clock = fileClock{vault.SystemClock(), file}
	}
	var s *block.Store
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		word := strings.Fields(in.Text())
		var out string
		switch err = nil; word[0] {
		case "create":
			var made *block.Store
			if made, err = db.Create(ctx, word[1], k, o); err == nil {
				s = made
			}
		case "open":
			s, err = db.Open(ctx, word[1], k, o)
		case "put":
			err = s.Put(ctx, []byte(word[1]), []byte(word[2]))
		case "get":
			var data []byte
			data, err = s.Get(ctx, []byte(word[1]), nil)
			out = string(data)
		case "set", "swap", "read", "snapshot":
			out, err = histories(ctx, s, word)
		case "rotate":
			err = s.RotateEpoch(ctx, nil)
		case "epochs":
			out = fmt.Sprint(s.State().Epochs)
		case "write": // until it is killed; what was acknowledged is said
			for n := 0; err == nil; n++ {
				if err = s.Put(ctx, fmt.Appendf(nil, "%s %02d", word[1], n%50), fmt.Append(nil, n)); err == nil {
					fmt.Println("put", n)
				} else if errors.Is(err, block.ErrStale) { // ByKEK, and the KEK was changed: once more
					err = nil
				}
				if len(word) > 2 { // so that eight of them leave the machine something
					pause, _ := time.ParseDuration(word[2])
					time.Sleep(pause)
				}
			}
		case "rotate-until-killed":
			for n := 0; err == nil; n++ {
				if err = s.RotateEpoch(ctx, nil); err == nil {
					fmt.Println("rotated", n)
				}
			}
		}
		if errors.Is(err, block.ErrOutcomeUnknown) {
			fmt.Println("unknown", strings.ReplaceAll(err.Error(), "\n", " "))
		} else if err != nil {
			fmt.Println("error", strings.ReplaceAll(err.Error(), "\n", " "))
		} else {
			fmt.Println("ok", out)
		}
	}
	return in.Err()
}

// fileClock is the system's clock, put forward by as much as a file says, and without timers: that of a
// process which was stopped, whose timers have not rung yet.
type fileClock struct {
	vault.Clock
	file string
}

func (c fileClock) ahead() time.Duration {
	b, _ := os.ReadFile(c.file)
	d, _ := time.ParseDuration(string(b))
	return d
}

func (c fileClock) Now() time.Time         { return c.Clock.Now().Add(c.ahead()) }
func (c fileClock) Elapsed() time.Duration { return c.Clock.Elapsed() + c.ahead() }
func (c fileClock) AfterFunc(time.Duration, func()) (stop func() bool) {
	return func() bool { return true }
}

// process is another one.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	to   io.WriteCloser
	from *bufio.Scanner
}

// processes is a rig whose vault is a directory that processes share.
type processes struct {
	*rig
	dir string
	own *local.Vault // the vault, which takes effect in every process
}

func newProcesses(t *testing.T) *processes {
	g := &processes{rig: newRig(t), dir: t.TempDir()}
	v, err := local.Create(filepath.Join(g.dir, "vault"), []byte(passphrase), &local.Options{InsecureKDF: true, KDF: local.KDF{Algorithm: local.PBKDF2, Passes: 10}})
	require.NoError(t, err)
	_, err = v.CreateKey(g.ctx, "customer", nil)
	require.NoError(t, err)
	require.NoError(t, v.Close())
	own, k, err := fileVault(g.dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, own.Close()) })
	g.own, g.kek, g.store, g.clock = own, k, block.Options{}, nil
	return g
}

// here is a DB of this process.
func (g *processes) here() *block.DB {
	g.t.Helper()
	db, err := postgres.Open(g.ctx, g.pool("program"), &postgres.Options{Schema: g.schema})
	require.NoError(g.t, err)
	g.t.Cleanup(func() { require.NoError(g.t, db.Close()) })
	return db
}

func (g *processes) start(env ...string) *process {
	g.t.Helper()
	exe, err := os.Executable()
	require.NoError(g.t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childOf+"="+g.dir, childOf+"_SCHEMA="+g.schema, childOf+"_CONN="+g.server.Conn("program", "pool_max_conns=6"))
	cmd.Env = append(cmd.Env, env...)
	cmd.Stderr = os.Stderr
	to, err := cmd.StdinPipe()
	require.NoError(g.t, err)
	from, err := cmd.StdoutPipe()
	require.NoError(g.t, err)
	require.NoError(g.t, cmd.Start())
	p := &process{g.t, cmd, to, bufio.NewScanner(from)}
	g.t.Cleanup(p.kill)
	return p
}

// tell has the process do something, and answer waits for what it says.
func (p *process) tell(format string, args ...any) {
	p.t.Helper()
	_, err := fmt.Fprintf(p.to, format+"\n", args...)
	require.NoError(p.t, err)
}

func (p *process) answer() string {
	p.t.Helper()
	require.True(p.t, p.from.Scan(), "it has ended: %v", p.from.Err())
	return p.from.Text()
}

// do is both, of what succeeds.
func (p *process) do(format string, args ...any) string {
	p.t.Helper()
	p.tell(format, args...)
	said, ok := strings.CutPrefix(p.answer(), "ok ")
	require.True(p.t, ok, "%s: %s", fmt.Sprintf(format, args...), p.from.Text())
	return said
}

// kill ends it as a crash does: kill -9.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// end has it close what it has open.
func (p *process) end() {
	p.t.Helper()
	require.NoError(p.t, p.to.Close())
	for p.from.Scan() {
		require.NotContains(p.t, p.from.Text(), "error")
	}
	require.NoError(p.t, p.cmd.Wait())
}
