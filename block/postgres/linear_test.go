package postgres_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/test/seed"
)

var histrounds = flag.Int("histories", 1, "histories of several processes to check")

// Of the histories: how many blocks, processes, and operations of each process.
const (
	histBlocks = 3
	histClient = 4
	histEach   = 60
)

// blockValues are the blocks' values; 0 is a block that is not there.
type blockValues [histBlocks]int

// op is an operation: what it sets, by block; or what it sets if a block has another value; or what it asks for.
type op struct {
	name    string // set, swap, read, snapshot
	set     map[int]int
	at, old int
}

// done is what it was answered; nil: nobody knows.
type done struct {
	swapped bool
	values  blockValues
}

// oneStore is what a store is, whoever uses it: operations happen one at a time, each whole. One of
// which nobody knows whether it has happened has no end, and so may come after all others.
var oneStore = porcupine.Model{
	Init: func() any { return blockValues{} },
	Step: func(s, in, out any) (bool, any) {
		now, o, d := s.(blockValues), in.(op), out.(*done)
		switch o.name {
		case "set":
			for b, v := range o.set {
				now[b] = v
			}
			return true, now
		case "swap":
			same := now[o.at] == o.old
			if same {
				now[o.at] = o.set[o.at]
			}
			return d == nil || d.swapped == same, now
		case "read":
			return now[o.at] == d.values[o.at], now
		default:
			return now == d.values, now
		}
	},
	DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v: %+v", in, out) },
}

// line is how a process is told to do it.
func (o op) line() string {
	switch o.name {
	case "set":
		text := "set"
		for b, v := range o.set {
			text += fmt.Sprint(" ", b, " ", v)
		}
		return text
	case "swap":
		return fmt.Sprintf("swap %d %d %d", o.at, o.old, o.set[o.at])
	case "read":
		return fmt.Sprint("read ", o.at)
	}
	return o.name
}

// histories does in a process what it was told.
func histories(ctx context.Context, s *block.Store, word []string) (out string, err error) {
	id := func(b string) []byte { return []byte("block " + b) }
	value := func(data []byte, err error) (string, error) {
		if errors.Is(err, block.ErrNotFound) {
			return "0", nil
		}
		return string(data), err
	}
	switch word[0] {
	case "set":
		if len(word) == 3 {
			if word[2] == "0" {
				return "", s.Delete(ctx, id(word[1]))
			}
			return "", s.Put(ctx, id(word[1]), []byte(word[2]))
		}
		b := s.NewBatch()
		for i := 1; i < len(word); i += 2 {
			if word[i+1] == "0" {
				err = b.Delete(ctx, id(word[i]))
			} else {
				err = b.Put(ctx, id(word[i]), []byte(word[i+1]))
			}
			if err != nil {
				return "", errors.Join(err, b.Close())
			}
		}
		return "", b.Commit(ctx)
	case "swap":
		var old []byte
		if word[2] != "0" {
			old = []byte(word[2])
		}
		err = s.PutIf(ctx, id(word[1]), old, []byte(word[3]))
		if errors.Is(err, block.ErrChanged) {
			return "changed", nil
		}
		return "swapped", err
	case "read":
		return value(s.Get(ctx, id(word[1]), nil))
	default:
		snap := s.Snapshot()
		var all []string
		for b := range histBlocks {
			v, e := value(snap.Get(ctx, id(strconv.Itoa(b)), nil))
			all, err = append(all, v), errors.Join(err, e)
		}
		return strings.Join(all, " "), errors.Join(err, snap.Close())
	}
}

// parse reads what a process answered; known is false if it does not know either whether it was done, and
// failed if it was not.
func (o op) parse(answer string) (d *done, known, failed bool) {
	out, ok := strings.CutPrefix(answer, "ok ")
	switch {
	case strings.HasPrefix(answer, "unknown "):
		return nil, false, false
	case !ok:
		return nil, true, true
	}
	d = &done{swapped: out == "swapped"}
	switch o.name {
	case "read":
		d.values[o.at], _ = strconv.Atoi(out)
	case "snapshot":
		for b, v := range strings.Fields(out) {
			d.values[b], _ = strconv.Atoi(v)
		}
	}
	return d, true, false
}

// Several processes on one database, some of which are killed in the middle of something, and the server
// as well, while another one rotates: one order of all that was done explains every answer, and agrees with the
// times at which it was asked for and given. So nothing that was acknowledged is lost, and nothing is read that
// was replaced before.
func TestProcessesAreLinearisable(t *testing.T) {
	drawn := seed.Of(t)
	t.Logf("-histories %d", *histrounds)
	for round := range *histrounds {
		g := newProcesses(t)
		own := g.create(g.here(), "store")
		for b := range histBlocks {
			require.NoError(t, own.Put(g.ctx, fmt.Appendf(nil, "block %d", b), []byte("x")))
			require.NoError(t, own.Delete(g.ctx, fmt.Appendf(nil, "block %d", b)))
		}
		var mu sync.Mutex
		var ops []porcupine.Operation
		var unknown, failed, kills, last atomic.Int64
		begun := time.Now()
		client := func(c int, rng *rand.Rand) {
			p := g.startOpen()
			killed := false
			for n := 0; n < histEach; {
				o := op{name: "read", at: rng.IntN(histBlocks), set: map[int]int{}}
				switch rng.IntN(8) {
				case 0, 1:
					o.name, o.set[o.at] = "set", int(last.Add(1))
				case 2:
					o.name, o.set[o.at] = "set", 0
				case 3:
					o.name = "set"
					for _, b := range rng.Perm(histBlocks)[:2] {
						o.set[b] = int(last.Add(1))
					}
				case 4:
					// What was written lately is what it may be.
					o.name, o.old, o.set[o.at] = "swap", max(0, int(last.Load())-rng.IntN(3)), int(last.Add(1))
				case 5:
					o.name = "snapshot"
				}
				kill := !killed && c < 3 && n == histEach/4*(c+1)
				call := time.Since(begun)
				p.tell("%s", o.line())
				if kill {
					p.kill()
					killed = true
					kills.Add(1)
				}
				answer := "unknown it was killed"
				if p.from.Scan() {
					answer = p.from.Text()
				} else if !kill {
					t.Errorf("process %d has ended at %+v", c, o)
					return
				}
				d, known, not := o.parse(answer)
				end := int64(time.Since(begun))
				if !known {
					end = int64(1) << 62
					unknown.Add(1)
				}
				if not {
					failed.Add(1) // it was not done, or nothing was read
					if kill {
						p = g.startOpen()
					}
					continue // until the server is back
				}
				n++
				if known || o.name == "set" || o.name == "swap" {
					mu.Lock()
					ops = append(ops, porcupine.Operation{ClientId: c, Input: o, Output: d, Call: int64(call), Return: end})
					mu.Unlock()
				}
				if kill {
					p = g.startOpen()
				}
			}
			p.kill()
		}
		rng := rand.New(rand.NewPCG(drawn, uint64(round)))
		var clients sync.WaitGroup
		for c := range histClient {
			rng := rand.New(rand.NewPCG(rng.Uint64(), uint64(c)))
			clients.Go(func() { client(c, rng) })
		}
		answered := func(n int) func() bool {
			return func() bool { mu.Lock(); defer mu.Unlock(); return len(ops) >= n }
		}
		var stop atomic.Bool
		var rotating sync.WaitGroup
		rotations := 0
		rotating.Go(func() {
			for !stop.Load() {
				if own.RotateEpoch(g.ctx, nil) == nil { // else the server is away
					rotations++
				}
			}
		})
		require.Eventually(t, answered(histClient*histEach/3), long, short)
		require.NoError(t, g.server.Kill())
		require.NoError(t, g.server.Restart())
		clients.Wait()
		stop.Store(true)
		rotating.Wait()
		require.False(t, t.Failed())
		require.NoError(t, own.RotateEpoch(g.ctx, nil))
		require.LessOrEqual(t, len(requireWhole(t, own).DEKs), 1, "an epoch, or no block")
		require.Equal(t, 1, own.State().Epochs)
		result := porcupine.CheckOperationsTimeout(oneStore, ops, long)
		require.Equal(t, porcupine.Ok, result, "no order explains the answers: %v", ops)
		require.Positive(t, rotations)
		t.Logf("%d operations, of %d it was not known, %d failed, %d processes killed, %d rotations", len(ops), unknown.Load(), failed.Load(), kills.Load(), rotations)
	}
}

// startOpen starts a process that has the store open, however often the server is away.
func (g *processes) startOpen() *process {
	for {
		p := g.start()
		p.tell("open store")
		if p.from.Scan() && strings.HasPrefix(p.from.Text(), "ok") {
			return p
		}
		p.kill()
	}
}
