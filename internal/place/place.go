// Package place knows where stores are: their directory, its lock, and the identity file, which says
// which directory it is, which phase it is in, and which files it has.
package place

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/internal/engine/pebble"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/row"
)

// Package block exports these errors.
var (
	ErrNotStore = errors.New("not a blockseal store")
	ErrLocked   = errors.New("the store is open elsewhere")
)

// Place is a directory of stores. The texts of its errors begin with the name of package
// block's function. Lock, Unlock and what opens the engine belong to one goroutine; the rest is safe
// for concurrent use.
type Place struct {
	fs       vfs.FS
	dir      string
	readOnly bool
	lock     *pebble.Lock // nil: not locked

	sealed bool // see SealFiles

	writing sync.Mutex // held while the present identity is written
	mu      sync.Mutex // guards what follows; held for short, so that readers wait for no disk
	files   vfs.FS     // that the engine's files are in; nil: fs
	found   *identity  // what Read found; nil: nothing yet
	id      identity   // the present identity
	refused []uint32   // partitions whose store has not made its tag in found; see CheckTag
}

// New returns the place of dir. It does not look at dir. If readOnly is set, nothing is ever
// written there but the file LOCK.
func New(fsys vfs.FS, dir string, readOnly bool) *Place {
	return &Place{fs: fsys, dir: dir, readOnly: readOnly}
}

// Dir returns the directory's path.
func (p *Place) Dir() string { return p.dir }

// Lock locks the directory, or returns [ErrLocked].
func (p *Place) Lock() error {
	l, err := pebble.LockDir(p.dir, p.fs, p.readOnly)
	if errors.Is(err, pebble.ErrLocked) {
		return fmt.Errorf("block: %s: %w: %w", p.dir, ErrLocked, err)
	}
	if err != nil {
		return fmt.Errorf("block: %s: %w", p.dir, err)
	}
	p.lock = l
	return nil
}

// Unlock releases the lock. To do so twice does nothing.
func (p *Place) Unlock() error {
	l := p.lock
	if l == nil {
		return nil
	}
	p.lock = nil
	return l.Close()
}

// OpenEngine opens the engine of a locked directory. It sets FS, ReadOnly and Create of o.
func (p *Place) OpenEngine(o pebble.Options) (*pebble.DB, error) {
	o.FS, o.ReadOnly, o.Create = p.engineFS(), p.readOnly, p.Phase() == pebble.Creating
	db, err := pebble.Open(p.dir, p.lock, o)
	if err != nil {
		return nil, fmt.Errorf("block: open %s: %w", p.dir, row.Damage(err))
	}
	return db, nil
}

func (p *Place) identity() identity {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.id
}

func (p *Place) set(id identity) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.id = id
}

// Instance tells the directory from its copies. It is fixed once the engine is open.
func (p *Place) Instance() inner.InstanceID { return p.identity().instance }

// StoreInstance tells the store in a partition from its copies: the first 16 bytes of the SHA-256 of
// "blockseal instance", a zero byte, the directory's instance and the partition's number (4 bytes,
// big-endian). Docs/format.md has it; it must not change.
func StoreInstance(directory inner.InstanceID, number uint32) inner.InstanceID {
	b := append([]byte("blockseal instance\x00"), directory[:]...)
	sum := sha256.Sum256(binary.BigEndian.AppendUint32(b, number))
	return inner.InstanceID(sum[:16])
}

// Stores returns how many stores were ever made in the directory, at the least.
func (p *Place) Stores() uint32 { return p.identity().stores }

// SetStores saves how many stores were made, if it is more.
func (p *Place) SetStores(n uint32) error {
	p.writing.Lock()
	defer p.writing.Unlock()
	id := p.identity()
	if p.readOnly || n <= id.stores {
		return nil
	}
	id.stores = n
	if err := writeIdentity(p.fs, p.dir, id); err != nil {
		return fmt.Errorf("block: %s: %w", p.dir, err)
	}
	p.set(id)
	return nil
}

// Phase returns the directory's phase.
func (p *Place) Phase() pebble.Phase { return p.identity().engine.Phase }

// Begin gives a directory that is yet to be created its instance.
func (p *Place) Begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.id.instance = NewInstance()
}
