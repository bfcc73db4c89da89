//go:build unix

package postgres_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault/local"
)

// stop returns when it has stopped, which is a while after the signal.
func (p *process) stop() {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(syscall.SIGSTOP))
	var is syscall.WaitStatus
	for !is.Stopped() {
		_, err := syscall.Wait4(p.cmd.Process.Pid, &is, syscall.WUNTRACED, nil)
		require.True(p.t, err == nil || err == syscall.EINTR, "%v", err)
	}
}

func (p *process) goOn() {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(syscall.SIGCONT))
}

// A process that is stopped (SIGSTOP) in the middle of a rotation, and whose session the server has given
// up meanwhile, as it does with one that answers nothing, changes nothing when it goes on: another one has
// the turn by then, and has finished what it left.
func TestStoppedRotatorIsOvertaken(t *testing.T) {
	g := newProcesses(t)
	s := g.create(g.here(), "store")
	const blocks = 2000
	b := s.NewBatch()
	for i := range blocks {
		require.NoError(t, b.Put(g.ctx, []byte("block "+strconv.Itoa(i)), []byte(strconv.Itoa(i))))
	}
	require.NoError(t, b.Commit(g.ctx))
	ofIt := childOf + "_CONN=" + g.server.Conn("program", "pool_max_conns=6", "application_name=stopped")
	const had = ` from pg_locks join pg_stat_activity using (pid) where locktype = 'advisory' and granted and application_name = 'stopped'`
	for tries, overtaken := 0, false; !overtaken; tries++ {
		require.Less(t, tries, 20, "it was never in the middle of it")
		p := g.start(ofIt)
		p.do("open store")
		p.tell("rotate-until-killed")
		require.Contains(t, p.answer(), "rotated")
		for {
			p.stop()
			if ask[int](g.rig, `select count(*)`+had) > 0 {
				break // it has the turn
			}
			p.goOn()
			require.Contains(t, p.answer(), "rotated")
		}
		require.Positive(t, ask[int](g.rig, `select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'stopped'`))
		require.NoError(t, s.RotateEpoch(g.ctx, nil))
		put(t, s, "between", "data")
		require.Equal(t, 1, s.State().Epochs)
		rows := blocksOf(g.content(g.server))
		p.goOn()
		// What it has said before is read first. It may have been about to give the turn back, and then has
		// begun anew: once more.
		for range 3 {
			if said := p.answer(); !strings.Contains(said, "rotated") {
				overtaken = strings.Contains(said, "the turn of rewriting operations was lost")
				break
			}
		}
		if overtaken {
			// It may begin an epoch, as everybody may.
			require.True(t, rows == blocksOf(g.content(g.server)), "it has replaced something all the same")
			require.NotEmpty(t, p.do("epochs"), "it lives")
			p.do("rotate") // and rotates when it is its turn
		}
		p.kill()
	}
	for i := 0; i < blocks; i += 7 {
		requireData(t, s, "block "+strconv.Itoa(i), strconv.Itoa(i))
	}
	requireData(t, s, "between", "data")
	require.NoError(t, s.RotateEpoch(g.ctx, nil))
	require.Len(t, requireWhole(t, s).DEKs, 1)
}

// blocksOf is the rows of what content returns.
func blocksOf(content string) string { return content[strings.LastIndex(content, "/"):] }

// A process that was stopped for longer than its lease, and whose timers have not rung, reads and writes
// nothing when it goes on, though it was told to before.
func TestStoppedForLongerThanItsLease(t *testing.T) {
	g := newProcesses(t)
	s := g.create(g.here(), "store")
	put(t, s, "id", "data")
	clock := filepath.Join(t.TempDir(), "clock")
	p := g.start(childOf + "_CLOCK=" + clock)
	p.do("open store")
	require.Equal(t, "data", p.do("get id"))
	p.do("put mine 1")
	p.stop()
	p.tell("put mine 2")
	p.tell("get id")
	p.tell("rotate")
	off := false
	_, err := g.own.UpdateKey(g.ctx, g.kek.ID(), local.Update{Enabled: &off})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(clock, []byte(keyring.DefaultLease.String()), 0o600))
	was := g.content(g.server)
	p.goOn()
	for range 3 {
		said := p.answer()
		require.Contains(t, said, "error")
		require.Contains(t, said, "inaccessible")
	}
	require.Equal(t, was, g.content(g.server))
	on := true
	_, err = g.own.UpdateKey(g.ctx, g.kek.ID(), local.Update{Enabled: &on})
	require.NoError(t, err)
	require.NoError(t, s.Revalidate(g.ctx))
	requireData(t, s, "mine", "1")
}
