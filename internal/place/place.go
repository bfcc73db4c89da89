// Package place knows where a store is: its directory, the directory's lock, and the identity file,
// which says who the store is, which phase it is in, and which files it has.
package place

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

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

// Place is the directory of one store. The texts of its errors begin with the name of package
// block's function. Lock, Unlock and what opens the store belong to one goroutine; the rest is safe
// for concurrent use.
type Place struct {
	fs       vfs.FS
	dir      string
	readOnly bool
	lock     *pebble.Lock // nil: not locked

	found   identity    // what Survey found
	refused atomic.Bool // found is not the store's own; see CheckTag

	writing sync.Mutex // held while the present identity is written
	mu      sync.Mutex // guards id; held for short, so that readers wait for no disk
	id      identity   // the present identity
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
	o.FS, o.ReadOnly, o.Create = p.fs, p.readOnly, p.Phase() == pebble.Creating
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

// Instance tells the store from its copies. It is fixed once the store is open.
func (p *Place) Instance() inner.InstanceID { return p.identity().instance }

// CopyOf returns the instance that the store is a copy of, until it is revalidated; zero: it is
// none.
func (p *Place) CopyOf() inner.InstanceID { return p.identity().copyOf }

// IsCopy reports whether the store is a copy that has not been revalidated.
func (p *Place) IsCopy() bool { return p.CopyOf() != (inner.InstanceID{}) }

// Phase returns the store's phase.
func (p *Place) Phase() pebble.Phase { return p.identity().engine.Phase }

// Begin gives a store that is yet to be created its instance.
func (p *Place) Begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.id.instance = NewInstance()
}
