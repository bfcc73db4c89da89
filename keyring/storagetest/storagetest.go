// Package storagetest is the conformance suite for implementations of [keyring.Storage]: whoever
// writes one runs it in a test.
//
//	func TestConformance(t *testing.T) {
//		storagetest.Run(t, func(t *testing.T) func() keyring.Storage {
//			place := newPlace(t) // empty
//			return func() keyring.Storage { return New(place) }
//		})
//	}
//
// What a suite cannot see is whether Swap returned before the machine would have kept the
// document: that is for the implementation's own tests.
package storagetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// Run runs the suite. place makes an empty place to keep a document in, each time another, and
// returns what opens it: as often as it is called, as several processes would, each time
// with a handle of its own. The documents are real ones, so that a storage may look at what is
// in clear in them ([keyring.Inspect]); they are no one line.
func Run(t *testing.T, place func(t *testing.T) (open func() keyring.Storage)) {
	documents, err := makeDocuments(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules() {
		t.Run(r.name, func(t *testing.T) {
			if err := r.check(t.Context(), documents, place(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// rule is one of the things that a storage promises.
type rule struct {
	name  string
	check func(ctx context.Context, d documents, open func() keyring.Storage) error
}

func rules() []rule {
	return []rule{
		{"an empty one holds no document", empty},
		{"it keeps what it was given", keeps},
		{"it keeps the largest document", keepsLarge},
		{"no revision is given twice", revisions},
		{"a revision that is gone is refused", refusesOld},
		{"an empty one has the empty revision", refusesUnknown},
		{"what is kept outlives its handle", durable},
		{"handles see each other's documents", shared},
		{"of swaps at once one is saved", oneWins},
		{"swaps at once lose nothing", loseNothing},
		{"a context that ended changes nothing", ended},
		{"a document is its owner's", owned},
	}
}

// maxDocument is the size in bytes of the largest document.
const maxDocument = 2 << 20

// documents are keyring documents, all different.
type documents [][]byte

const made = 16

func makeDocuments(ctx context.Context) (d documents, err error) {
	v := vaulttest.New(nil)
	var s keyring.MemStorage
	r, err := keyring.Create(ctx, &s, kek.New(v, v.CreateKey("customer").Versionless()), nil)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	for range made {
		document, _, err := s.Load(ctx)
		if err != nil {
			return nil, err
		}
		d = append(d, document)
		if err := r.BeginEpoch(ctx); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// other returns another document with each n: what is sealed in it differs, which only who
// opens it could see.
func (d documents) other(n int) []byte {
	c := bytes.Clone(d[n%len(d)])
	return fmt.Append(c, n)
}

// taggingStorage is a storage that keeps more than the document, as a store's.
type taggingStorage interface {
	SwapTagged(ctx context.Context, was keyring.Revision, document []byte, is inner.Opened) (keyring.Revision, error)
}

// swap is Swap or, for a storage that keeps more than the document, SwapTagged.
func swap(ctx context.Context, s keyring.Storage, was keyring.Revision, document []byte) (keyring.Revision, error) {
	t, ok := s.(taggingStorage)
	if !ok {
		return s.Swap(ctx, was, document)
	}
	in, err := keyring.Inspect(document)
	if err != nil {
		return "", err
	}
	return t.SwapTagged(ctx, was, document, inner.Opened{Generation: in.Generation,
		Tag: func(purpose string, data []byte) [inner.TagSize]byte {
			return sha256.Sum256(append([]byte(purpose), data...))
		}})
}

// put is a swap that has to be saved.
func put(ctx context.Context, s keyring.Storage, was keyring.Revision, document []byte) (keyring.Revision, error) {
	now, err := swap(ctx, s, was, document)
	if err != nil {
		return "", fmt.Errorf("a Swap of the document that is there failed: %w", err)
	}
	if now == "" {
		return "", errors.New("a Swap returned the empty revision, which is that of no document")
	}
	return now, nil
}

// holds checks what a storage holds.
func holds(ctx context.Context, s keyring.Storage, document []byte, revision keyring.Revision) error {
	got, at, err := s.Load(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("a Load failed: %w", err)
	case !bytes.Equal(got, document):
		return fmt.Errorf("a Load returned another document than was saved last, of %d bytes; want %d", len(got), len(document))
	case at != revision:
		return fmt.Errorf("a Load returned revision %q of the document that Swap called %q", at, revision)
	}
	return nil
}

// refused checks that a swap is refused as one that came too late.
func refused(ctx context.Context, s keyring.Storage, was keyring.Revision, document []byte) error {
	_, err := swap(ctx, s, was, document)
	if err == nil {
		return fmt.Errorf("a Swap of revision %q was saved, which is not there", was)
	}
	if !errors.Is(err, keyring.ErrConflict) {
		return fmt.Errorf("the error of a Swap that came too late does not match keyring.ErrConflict: %w", err)
	}
	return nil
}

func empty(ctx context.Context, _ documents, open func() keyring.Storage) error {
	document, _, err := open().Load(ctx)
	if err == nil {
		return fmt.Errorf("a Load returned a document of %d bytes", len(document))
	}
	if !errors.Is(err, keyring.ErrNoDocument) {
		return fmt.Errorf("the error of Load does not match keyring.ErrNoDocument: %w", err)
	}
	return nil
}

func keeps(ctx context.Context, d documents, open func() keyring.Storage) error {
	s := open()
	var at keyring.Revision
	for i, document := range d {
		now, err := put(ctx, s, at, document)
		if err == nil {
			err = errors.Join(holds(ctx, s, document, now), holds(ctx, s, document, now))
		}
		if err != nil {
			return fmt.Errorf("document %d: %w", i, err)
		}
		at = now
	}
	return nil
}

func keepsLarge(ctx context.Context, d documents, open func() keyring.Storage) error {
	s, large := open(), bytes.Clone(d[0])
	large = append(large, bytes.Repeat([]byte{7}, maxDocument-len(large))...)
	at, err := put(ctx, s, "", large)
	if err != nil {
		return err
	}
	if err := holds(ctx, open(), large, at); err != nil {
		return err
	}
	if at, err = put(ctx, s, at, d[1]); err != nil {
		return err
	}
	return holds(ctx, open(), d[1], at)
}

func revisions(ctx context.Context, d documents, open func() keyring.Storage) error {
	s := open()
	given := []keyring.Revision{""}
	for _, document := range d {
		now, err := put(ctx, s, given[len(given)-1], document)
		if err != nil {
			return err
		}
		if i := slices.Index(given, now); i >= 0 {
			return fmt.Errorf("document %d has revision %q, as document %d had", len(given), now, i)
		}
		given = append(given, now)
	}
	return nil
}

func refusesOld(ctx context.Context, d documents, open func() keyring.Storage) error {
	s := open()
	given := []keyring.Revision{""}
	for i := range 3 {
		now, err := put(ctx, s, given[i], d[i])
		if err != nil {
			return err
		}
		for _, old := range given {
			if err := errors.Join(refused(ctx, s, old, d[9]), refused(ctx, open(), old, d[9]), holds(ctx, s, d[i], now)); err != nil {
				return err
			}
		}
		given = append(given, now)
	}
	return nil
}

func refusesUnknown(ctx context.Context, d documents, open func() keyring.Storage) error {
	if err := refused(ctx, open(), keyring.ContentRevision(d[0]), d[1]); err != nil {
		return err
	}
	if err := empty(ctx, d, open); err != nil {
		return err
	}
	at, err := put(ctx, open(), "", d[2])
	if err != nil {
		return err
	}
	return holds(ctx, open(), d[2], at)
}

func durable(ctx context.Context, d documents, open func() keyring.Storage) error {
	var at keyring.Revision
	for i := range 3 {
		now, err := put(ctx, open(), at, d[i])
		if err != nil {
			return err
		}
		if err := holds(ctx, open(), d[i], now); err != nil {
			return fmt.Errorf("opened again: %w", err)
		}
		at = now
	}
	return nil
}

func shared(ctx context.Context, d documents, open func() keyring.Storage) error {
	handles := []keyring.Storage{open(), open()}
	var at keyring.Revision
	for i := range 6 {
		s, other := handles[i%2], handles[1-i%2]
		now, err := put(ctx, s, at, d[i])
		if err != nil {
			return err
		}
		if err := errors.Join(holds(ctx, other, d[i], now), refused(ctx, other, at, d[9]), holds(ctx, s, d[i], now)); err != nil {
			return err
		}
		at = now
	}
	return nil
}

// oneWins: several replace one document at once, through two handles, and one does.
func oneWins(ctx context.Context, d documents, open func() keyring.Storage) error {
	const rounds, workers = 8, 6
	handles := []keyring.Storage{open(), open()}
	var at keyring.Revision
	for round := range rounds {
		type outcome struct {
			now keyring.Revision
			err error
		}
		out := make([]outcome, workers)
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() { out[w].now, out[w].err = swap(ctx, handles[w%2], at, d.other(round*workers+w)) })
		}
		wg.Wait()
		winner := -1
		for w, o := range out {
			switch {
			case o.err == nil && winner >= 0:
				return fmt.Errorf("two Swaps of one revision were saved")
			case o.err == nil:
				winner = w
			case !errors.Is(o.err, keyring.ErrConflict):
				return fmt.Errorf("of several Swaps at once one failed with an error that does not match keyring.ErrConflict: %w", o.err)
			}
		}
		if winner < 0 {
			return errors.New("of several Swaps of the revision that was there none was saved")
		}
		at = out[winner].now
		if err := holds(ctx, open(), d.other(round*workers+winner), at); err != nil {
			return err
		}
	}
	return nil
}

// loseNothing: each worker counts on, in the document, by loading and swapping until it is saved.
// All of them have loaded before the first one swaps, so that all but one come too late. In the
// end the count is theirs together. Whoever loads meanwhile finds whole documents.
func loseNothing(ctx context.Context, d documents, open func() keyring.Storage) error {
	const workers, steps = 4, 8
	base := len(d[0])
	with := func(n byte) []byte { return append(bytes.Clone(d[0]), n) }
	at, err := put(ctx, open(), "", with(0))
	if err != nil {
		return err
	}
	count := func(s keyring.Storage, loaded func()) error {
		for {
			document, at, err := s.Load(ctx)
			loaded()
			if err == nil && (len(document) != base+1 || !bytes.Equal(document[:base], d[0])) {
				err = fmt.Errorf("a Load beside Swaps returned %d bytes that nobody has saved", len(document))
			}
			if err != nil {
				return err
			}
			if _, err = swap(ctx, s, at, with(document[base]+1)); !errors.Is(err, keyring.ErrConflict) {
				return err
			}
		}
	}
	for range steps {
		var loaded, ended sync.WaitGroup
		loaded.Add(workers)
		errs := make([]error, workers)
		for w := range workers {
			ended.Go(func() {
				errs[w] = count(open(), sync.OnceFunc(func() {
					loaded.Done()
					loaded.Wait()
				}))
			})
		}
		ended.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	document, now, err := open().Load(ctx)
	if err != nil {
		return err
	}
	if n := int(document[len(document)-1]); n != workers*steps || now == at {
		return fmt.Errorf("of %d changes that were saved, each made from the one before, %d are there", workers*steps, n)
	}
	return nil
}

func ended(ctx context.Context, d documents, open func() keyring.Storage) error {
	at, err := put(ctx, open(), "", d[0])
	if err != nil {
		return err
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := swap(over, open(), at, d[1]); err == nil {
		return errors.New("a Swap succeeded with a context that had ended")
	} else if errors.Is(err, keyring.ErrConflict) {
		return fmt.Errorf("the error of a Swap whose context had ended says that it came too late: %w", err)
	}
	return holds(ctx, open(), d[0], at)
}

// owned: what is done to the bytes of a document after Swap, or to what Load returned, changes
// nothing of what is kept.
func owned(ctx context.Context, d documents, open func() keyring.Storage) error {
	s, mine := open(), bytes.Clone(d[0])
	at, err := put(ctx, s, "", mine)
	if err != nil {
		return err
	}
	clear(mine)
	got, _, err := s.Load(ctx)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, d[0]) {
		return errors.New("what became of the bytes that Swap was given became of the document")
	}
	clear(got)
	return holds(ctx, s, d[0], at)
}
