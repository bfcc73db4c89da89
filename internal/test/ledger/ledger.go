// Package ledger keeps account of what a store was asked to write and what it
// acknowledged, so that after a crash it can be said what must be there, what may be,
// and what must not.
//
// Every id has versions, 1 and up. A version's content follows from id and version,
// so that a block that is read says which version it is; some versions are
// deletions. [Ledger.Begin] before a change, [Ledger.Ack] after; then, of a store that
// is a state of the one that was written, [Check].
package ledger

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"github.com/blockseal/blockseal/block"
)

// Ledger is what was begun and what was acknowledged. It is safe for concurrent use
// as long as one goroutine at a time changes an id.
type Ledger struct {
	mu           sync.Mutex
	begun, acked map[string]uint64
	log          io.Writer // nil: none
}

// New returns an empty ledger, which writes each entry to log, unless that is nil,
// before it returns: as a line "b VERSION ID" or "a VERSION ID".
func New(log io.Writer) *Ledger {
	return &Ledger{begun: map[string]uint64{}, acked: map[string]uint64{}, log: log}
}

// Read enters what a ledger wrote, until the end or a line that was cut off.
func (l *Ledger) Read(r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var kind byte
		var version uint64
		if _, err := fmt.Sscanf(line, "%c %d", &kind, &version); err != nil {
			continue // somebody else's line
		}
		_, id, _ := strings.Cut(strings.TrimSuffix(line[2:], "\n"), " ")
		l.mu.Lock()
		switch kind {
		case 'b':
			l.begun[id] = version
		case 'a':
			l.acked[id] = version
		}
		l.mu.Unlock()
	}
}

// Write writes the whole ledger, for Read.
func (l *Ledger) Write(w io.Writer) error {
	var err error
	for kind, m := range map[byte]map[string]uint64{'b': l.Begun(), 'a': l.Acked()} {
		for id, version := range m {
			_, e := fmt.Fprintf(w, "%c %d %s\n", kind, version, id)
			err = errors.Join(err, e)
		}
	}
	return err
}

func (l *Ledger) enter(m map[string]uint64, kind byte, id string, version uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m[id] = version
	if l.log != nil {
		fmt.Fprintf(l.log, "%c %d %s\n", kind, version, id)
	}
}

// Begin announces the next version of an id, which it returns.
func (l *Ledger) Begin(id string) uint64 {
	l.mu.Lock()
	version := l.begun[id] + 1
	l.mu.Unlock()
	l.enter(l.begun, 'b', id, version)
	return version
}

// BeginAll is Begin for a group of ids that always change together.
func (l *Ledger) BeginAll(ids []string) (version uint64) {
	for _, id := range ids {
		version = l.Begin(id)
	}
	return version
}

// Ack says that the store acknowledged a version.
func (l *Ledger) Ack(version uint64, ids ...string) {
	for _, id := range ids {
		l.enter(l.acked, 'a', id, version)
	}
}

// Acked returns the acknowledged versions, and Begun those that were begun.
func (l *Ledger) Acked() map[string]uint64 { return l.copy(l.acked) }

// Begun returns the versions that were begun.
func (l *Ledger) Begun() map[string]uint64 { return l.copy(l.begun) }

func (l *Ledger) copy(m map[string]uint64) map[string]uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(m)
}

// Resume makes l the account of a store that was found to hold the given versions:
// what was begun and is not there will never be.
func (l *Ledger) Resume(found map[string]uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, v := range found {
		l.acked[id], l.begun[id] = v, max(v, l.begun[id])
	}
}

// Deletes reports whether a version is a deletion. Version 0 is an id that was never
// written.
func Deletes(version uint64) bool { return version%5 == 0 }

// Content is what a version of an id holds: the version, and 0 to 1,999 bytes that
// nothing else has.
func Content(id string, version uint64) []byte {
	h := fnv.New64a()
	h.Write([]byte(id))
	r := rand.New(rand.NewPCG(h.Sum64(), version))
	data := binary.BigEndian.AppendUint64(nil, version)
	for range r.IntN(2000) {
		data = append(data, byte(r.Uint32()))
	}
	return data
}

// Change writes a version of some ids: by Put or Delete if it is one, in a batch if
// they are several.
func Change(ctx context.Context, s *block.Store, version uint64, ids ...string) error {
	if len(ids) == 1 {
		if Deletes(version) {
			return s.Delete(ctx, []byte(ids[0]))
		}
		return s.Put(ctx, []byte(ids[0]), Content(ids[0], version))
	}
	for {
		err := batch(ctx, s, version, ids)
		if !errors.Is(err, block.ErrStale) { // else the KEK was changed: seal again
			return err
		}
	}
}

func batch(ctx context.Context, s *block.Store, version uint64, ids []string) error {
	b := s.NewBatch()
	defer b.Close()
	for _, id := range ids {
		err := error(nil)
		if Deletes(version) {
			err = b.Delete(ctx, []byte(id))
		} else {
			err = b.Put(ctx, []byte(id), Content(id, version))
		}
		if err != nil {
			return err
		}
	}
	return b.Commit(ctx)
}

// Check compares a store with the least and the greatest versions that its blocks may
// have: those acknowledged before it was left as it is, and those begun until then.
// The ids of a group must have one version. It returns the versions that it found,
// and verifies the store. An id in none of the maps must not be there.
func Check(ctx context.Context, s *block.Store, least, most map[string]uint64, groups ...[]string) (found map[string]uint64, err error) {
	found = map[string]uint64{}
	there := map[string]bool{}
	for b, err := range s.Blocks(ctx, block.Range{}) {
		if err != nil {
			return nil, err
		}
		id := string(b.ID)
		if len(b.Data) < 8 {
			return nil, fmt.Errorf("%q has %d bytes", id, len(b.Data))
		}
		v := binary.BigEndian.Uint64(b.Data)
		if !bytes.Equal(b.Data, Content(id, v)) {
			return nil, fmt.Errorf("%q is not what was written as version %d", id, v)
		}
		if v < least[id] || v > most[id] || Deletes(v) {
			return nil, fmt.Errorf("%q is version %d, acknowledged was %d, begun %d", id, v, least[id], most[id])
		}
		got, err := s.Get(ctx, b.ID, nil)
		if err != nil || !bytes.Equal(got, b.Data) {
			return nil, fmt.Errorf("%q: Get differs from the scan: %w", id, err)
		}
		there[id], found[id] = true, v
	}
	for id, max := range most {
		if there[id] {
			continue
		}
		v := least[id]
		for v <= max && !Deletes(v) {
			v++
		}
		if v > max {
			return nil, fmt.Errorf("%q is missing, acknowledged was version %d, begun %d", id, least[id], max)
		}
		found[id] = v
		if _, err := s.Get(ctx, []byte(id), nil); !errors.Is(err, block.ErrNotFound) {
			return nil, fmt.Errorf("%q is not in the scan, and Get says: %w", id, err)
		}
	}
	for _, g := range groups {
		for _, id := range g[1:] {
			if there[id] != there[g[0]] || there[id] && found[id] != found[g[0]] {
				return nil, fmt.Errorf("half a batch: %q is version %d, %q is version %d", g[0], found[g[0]], id, found[id])
			}
		}
	}
	if _, err := s.Verify(ctx, nil); err != nil {
		return nil, err
	}
	return found, nil
}

// Versions sums up how much a ledger has: ids, and versions acknowledged.
func (l *Ledger) Versions() (ids int, versions uint64) {
	acked := l.Acked()
	for _, v := range slices.Collect(maps.Values(acked)) {
		versions += v
	}
	return len(acked), versions
}
