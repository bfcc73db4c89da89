package main

import (
	"io"

	"github.com/ncruces/go-sqlite3"
	sqlite "github.com/ncruces/go-sqlite3/vfs"
)

// database is one that is open, with what its connections have locked. VFS.mu guards it.
type database struct {
	name string
	refs int
	lock io.Closer // against other processes

	readers  int  // handles with SHARED or more
	reserved bool // one of them is going to write
	pending  bool // and waits for the readers to end
}

// open returns the database of that path with one more reference.
func (v *VFS) open(name string) (*database, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	d := v.dbs[name]
	if d == nil {
		lock, err := v.fs.Unwrap().Lock(name + ".lock")
		if err != nil {
			return nil, err
		}
		d = &database{name: name, lock: lock}
		v.dbs[name] = d
	}
	d.refs++
	return d, nil
}

// release gives the reference back.
func (f *file) release() error {
	if f.db == nil {
		return nil
	}
	f.vfs.mu.Lock()
	defer f.vfs.mu.Unlock()
	d := f.db
	f.db = nil
	if d.refs--; d.refs > 0 {
		return nil
	}
	delete(f.vfs.dbs, d.name)
	return d.lock.Close()
}

// Lock implements vfs.File, as SQLite has it: any number of readers; one that is going to write, beside
// them; one that writes, alone. It waits for nobody: PRAGMA busy_timeout does.
func (f *file) Lock(lock sqlite.LockLevel) error {
	if f.lock >= lock || f.db == nil {
		return nil
	}
	if f.flags&sqlite.OPEN_READWRITE == 0 && lock >= sqlite.LOCK_RESERVED {
		return sqlite3.IOERR_LOCK
	}
	f.vfs.mu.Lock()
	defer f.vfs.mu.Unlock()
	switch d := f.db; lock {
	case sqlite.LOCK_SHARED:
		if d.pending {
			return sqlite3.BUSY
		}
		d.readers++
	case sqlite.LOCK_RESERVED:
		if d.reserved {
			return sqlite3.BUSY
		}
		d.reserved = true
	case sqlite.LOCK_EXCLUSIVE:
		if f.lock < sqlite.LOCK_RESERVED && d.reserved || f.lock < sqlite.LOCK_PENDING && d.pending {
			return sqlite3.BUSY
		}
		d.reserved, d.pending = true, true // no reader more
		f.lock = sqlite.LOCK_PENDING
		if d.readers > 1 {
			return sqlite3.BUSY
		}
	}
	f.lock = lock
	return nil
}

// Unlock implements vfs.File.
func (f *file) Unlock(lock sqlite.LockLevel) error {
	if f.lock <= lock || f.db == nil {
		return nil
	}
	f.vfs.mu.Lock()
	defer f.vfs.mu.Unlock()
	if f.lock >= sqlite.LOCK_RESERVED {
		f.db.reserved = false
	}
	if f.lock >= sqlite.LOCK_PENDING {
		f.db.pending = false
	}
	if lock == sqlite.LOCK_NONE {
		f.db.readers--
	}
	f.lock = lock
	return nil
}

// CheckReservedLock implements vfs.File.
func (f *file) CheckReservedLock() (bool, error) {
	if f.db == nil {
		return false, nil
	}
	f.vfs.mu.Lock()
	defer f.vfs.mu.Unlock()
	return f.db.reserved, nil
}
