package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// rehearsal is one way to take a store's key away, and give it back.
type rehearsal struct {
	name string
	// take takes access away: at once, or at the moment that it returns.
	take func() time.Time
	give func()
	// within is how long after that the store may stay accessible.
	within time.Duration
	// kind and op are what the reason must say: which refusal, and of what ("": of
	// whatever came first).
	kind error
	op   vault.Operation
}

// rehearsals are all of them. The vault's answer takes effect with the next check;
// a key's own expiry at its moment; silence when the lease ends.
func (d *drill) rehearsals() []rehearsal {
	now := func(f func()) func() time.Time {
		return func() time.Time { f(); return d.time.now() }
	}
	var all []rehearsal
	for _, op := range []vault.Operation{vault.OpGet, vault.OpWrapKey, vault.OpUnwrapKey} {
		all = append(all, rehearsal{
			name: string(op) + " revoked", within: d.check, kind: vault.ErrAccessDenied, op: op,
			take: now(func() { d.vault.Revoke(op) }),
			give: func() { d.vault.Restore(op) },
		})
	}
	return append(all, rehearsal{
		name: "key disabled", within: d.check, kind: vault.ErrKeyDisabled,
		take: now(func() { d.vault.SetEnabled(d.key, false) }),
		give: func() { d.vault.SetEnabled(d.key, true) },
	}, rehearsal{
		name: "key expires", within: 0, kind: vault.ErrKeyExpired,
		// Two checks see the date before it comes.
		take: func() time.Time {
			expires := d.time.now().Add(5 * d.check / 2)
			d.vault.SetDates(d.key, time.Time{}, expires)
			return expires
		},
		give: func() { d.vault.SetDates(d.key, time.Time{}, time.Time{}) },
	}, rehearsal{
		name: "key deleted", within: d.check, kind: vault.ErrKeyDeleted,
		take: now(func() { d.vault.Delete(d.key.Name) }),
		give: func() { d.vault.Recover(d.key.Name) },
	}, rehearsal{
		name: "network cut", within: d.lease, kind: vault.ErrUnavailable,
		take: now(func() { d.vault.SetOutage(vaulttest.NetworkGone()) }),
		give: func() { d.vault.SetOutage(nil) },
	})
}

// result is what a rehearsal has shown.
type result struct {
	rehearsal
	inaccessible time.Duration // after access was taken away
	reason       error         // nil if the store stayed accessible
	refused      [kinds]int64
	degraded     int64
	recovered    time.Duration // after access was given back
	readBack     int
}

// run rehearses everything, then reads everything once more from the store's files.
func (d *drill) run(ctx context.Context) error {
	fmt.Fprintf(d.out, "lease %v, a check every %v, on %v; %d goroutines read and write\n", d.lease, d.check, d.time, workers)
	var results []result
	for _, r := range d.rehearsals() {
		res, err := d.rehearse(ctx, r)
		if err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		res.write(d.out)
		results = append(results, res)
	}
	n, err := d.reopen(ctx)
	if err != nil {
		return err
	}
	writeTable(d.out, results)
	fmt.Fprintf(d.out, "\nclosed and opened again: %d acknowledged blocks, all authenticated\n", n)
	return d.load.verdict(d.out)
}

// rehearse takes access away under load, waits until the store is Inaccessible,
// gives access back, waits until the store is Available, and reads back all that
// was ever acknowledged. What takes too long is a violation; an error is returned
// if the drill cannot go on.
func (d *drill) rehearse(ctx context.Context, r rehearsal) (res result, err error) {
	res.rehearsal = r
	d.load.start(ctx)
	defer d.load.stop()
	defer d.line.Clear()
	const enough = 5 // operations of each worker, of each kind
	if err := d.load.await(ctx, enough, served); err != nil {
		return res, err
	}

	d.load.cut.Add(1) // odd
	taken := r.take()
	st, err := d.await(ctx, r.name, keyring.Inaccessible, taken, r.within)
	if err != nil {
		return res, err
	}
	if st.Status == keyring.Inaccessible {
		res.inaccessible, res.reason = max(st.Since.Sub(taken), 0), st.Cause
		d.judge(r, st.Cause)
		if err := d.load.await(ctx, enough, refused); err != nil {
			return res, err
		}
	}

	d.load.cut.Add(1) // even
	r.give()
	given := d.time.now()
	if st, err = d.await(ctx, r.name+", given back", keyring.Available, given, d.check); err != nil {
		return res, err
	}
	if st.Status != keyring.Available {
		return res, fmt.Errorf("the store does not come back: %v", st)
	}
	res.recovered = max(st.Since.Sub(given), 0)
	if err := d.load.await(ctx, enough, served); err != nil {
		return res, err
	}

	d.load.stop()
	for k := range kinds {
		res.refused[k] = d.load.count(func(w *worker) *atomic.Int64 { return &w.refused[k] })
	}
	res.degraded = d.load.degraded.Load()
	res.readBack, err = d.load.readBack(ctx)
	return res, err
}

// await waits for a status that should have come within a time from a moment on,
// and says if it has not. It returns the state as it is then.
func (d *drill) await(ctx context.Context, what string, want keyring.Status, from time.Time, within time.Duration) (keyring.State, error) {
	limit := from.Sub(d.time.now()) + within + d.time.slack()
	met, err := d.time.until(ctx, limit, func() bool {
		st := d.store.State()
		d.line.Show(func() string {
			return fmt.Sprintf("%s: %v, %v to go at most", what, st.Status, round(from.Add(within).Sub(d.time.now())))
		})
		d.load.whileDegraded(ctx)
		return st.Status == want
	})
	st := d.store.State()
	if err != nil {
		return st, err
	}
	if late := st.Since.Sub(from) - within; !met {
		d.load.violate("%s: it should be %v after %v at most, and the store is %v", what, want, round(within), st)
	} else if late > d.time.slack() {
		d.load.violate("%s: it should be %v after %v at most, and was %v later", what, want, round(within), round(late))
	}
	return st, nil
}

// judge compares the reason that the state gives with what was done.
func (d *drill) judge(r rehearsal, reason error) {
	var refusal *vault.Error
	if !errors.As(reason, &refusal) || !errors.Is(reason, r.kind) || (r.op != "" && refusal.Op != r.op) {
		d.load.violate("%s: the state gives another reason: %v", r.name, reason)
	}
}

// reopen closes the store and opens it again, as after a restart, and reads
// everything.
func (d *drill) reopen(ctx context.Context) (int, error) {
	if err := d.store.Close(); err != nil {
		return 0, err
	}
	if err := d.open(ctx); err != nil {
		return 0, err
	}
	d.load.store = storeTarget{d.store}
	if _, err := d.store.Verify(ctx, nil); err != nil {
		return 0, err
	}
	return d.load.readBack(ctx)
}
