package sealfs

import (
	"context"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
)

// newKey makes a DEK for a head, with names, and calls write to store the head, which takes over the
// key that it is given unless it returns an error. While there is no access it waits, as
// Options.NoAccess says.
func (f *FS) newKey(h *head, names []string, write func(k *fileKey) error) error {
	return f.retry(func() error { return f.newKeyNow(h, names, write) })
}

// newKeyNow is newKey without waiting.
func (f *FS) newKeyNow(h *head, names []string, write func(k *fileKey) error) error {
	defer f.making()()
	k, err := f.makeKey(h, names)
	if err != nil {
		return err
	}
	if err := write(k); err != nil {
		k.release()
		return err
	}
	return nil
}

// makeKey makes a DEK, and puts its record and the names into a head. There is a hold as long as this
// computes and asks, and none afterwards: a lock waits for no disk.
func (f *FS) makeKey(h *head, names []string) (*fileKey, error) {
	hold, err := f.acquire()
	if err != nil {
		return nil, err
	}
	defer func() { hold.Release() }()
	var key dek.Key
	defer key.Destroy()
	var b keyring.Binding
	b.Set(h.context())
	record, err := hold.NewDEK(background, nil, &key, &b)
	if err != nil {
		return nil, ofKeyring(err)
	}
	k := &fileKey{fs: f, id: h.id, context: h.context(), record: record}
	if err := k.set(&key, hold.For(inner.Block{}).Session()); err != nil {
		return nil, err
	}
	h.records[0] = record
	if h.layout == Pages {
		if h.sizes[0], err = k.firstSizes(); err != nil {
			k.forget()
			return nil, err
		}
	}
	for i, n := range names {
		h.names[i] = sealName(&k.aead, n)
	}
	return f.share(k), nil // so that a lock that comes before the head is on the disk overwrites it
}

// making says that a DEK is about to be made, until made is called: when its record is in a file, where a
// rotation finds it, or nowhere.
func (f *FS) making() (made func()) {
	c := make(chan struct{})
	f.mu.Lock()
	f.makings[c] = struct{}{}
	f.mu.Unlock()
	return func() {
		f.mu.Lock()
		delete(f.makings, c)
		f.mu.Unlock()
		close(c)
	}
}

// awaitMakings waits until every DEK that is being made now is in its file. What comes after names the
// epoch that is the current one by now, or a younger one.
func (f *FS) awaitMakings(ctx context.Context) error {
	f.mu.Lock()
	var under []chan struct{}
	for c := range f.makings {
		under = append(under, c)
	}
	f.mu.Unlock()
	for _, c := range under {
		select {
		case <-c:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
