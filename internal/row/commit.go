package row

import (
	"context"
	"errors"
	"math"
	"slices"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
)

// NoEpoch is the epoch of a batch without DEK records.
const NoEpoch = math.MaxUint32

// recordEpoch returns the epoch of a DEK record that was just made.
func recordEpoch(record []byte) uint32 {
	in, err := keyring.ParseRecord(record)
	if err != nil {
		return 0 // older than any: judge then reads the record and returns the error
	}
	return in.Epoch
}

// apply makes a batch visible. Its DEK records name no epoch before oldest. Unless Config.NoSync is
// set, the caller calls durable before it closes the batch; other work is best done between the
// two, while the engine writes its log.
func (t *Table) apply(ctx context.Context, h *keyring.Hold, b engine.Batch, oldest uint32, was ...engine.Was) error {
	for {
		g, err := t.judge(ctx, h, b, oldest)
		if err != nil {
			return err
		}
		g.Was = was
		err = t.Part.Apply(ctx, b, g, !t.noSync)
		if err == nil {
			t.wrote()
			return nil
		}
		if !errors.Is(err, engine.ErrFloor) {
			return Damage(err) // the engine reads the rows of g.Was
		}
		oldest = g.Epoch // the floor was raised in between: judge again
	}
}

// durable waits until an applied batch is durable, unless Config.NoSync is set.
func (t *Table) durable(b engine.Batch) error {
	if t.noSync {
		return nil
	}
	return b.Wait()
}

// Commit applies a batch and waits until it is durable. It keeps the caches in step.
func (t *Table) Commit(ctx context.Context, h *keyring.Hold, b engine.Batch, oldest uint32) error {
	if !t.common.Shared {
		return t.commit(ctx, h, b, oldest)
	}
	ctx, end := within(ctx, h)
	return end(t.commit(ctx, h, b, oldest))
}

func (t *Table) commit(ctx context.Context, h *keyring.Hold, b engine.Batch, oldest uint32) error {
	writes := make([]uint64, 0, 64) // a small batch allocates nothing
	c, next, err := b.Op(0)
	for ; err == nil && next > 0; c, next, err = b.Op(next) {
		writes = append(writes, t.common.rows.announce(t.salt, c.ID))
	}
	if err == nil {
		err = t.apply(ctx, h, b, oldest)
	}
	for _, c := range writes {
		t.common.rows.report(c)
	}
	if err != nil {
		return err
	}
	// The engine may have kept a large batch and left an empty one. The record cache then
	// keeps older records of these blocks, which readers notice.
	for c, next, err = b.Op(0); err == nil && next > 0; c, next, err = b.Op(next) { // the loop above has read it without an error
		if c.Deleted {
			t.common.records.drop(t.salt, c.ID)
		} else {
			t.common.records.put(t.salt, c.ID, c.Record)
		}
	}
	return t.durable(b)
}

// judge compares a batch with the present floor. DEK records that name an epoch below it are
// rewrapped in the batch's own memory: the batch was begun before RotateEpoch raised the floor. If
// the floor is raised after this look, the engine refuses the batch.
func (t *Table) judge(ctx context.Context, h *keyring.Hold, b engine.Batch, oldest uint32) (engine.Guard, error) {
	floor := t.Part.Floor()
	if err := t.lookAtDocument(ctx, h, floor); err != nil {
		return engine.Guard{}, err
	}
	g := engine.Guard{Floor: floor.Revision, Epoch: oldest}
	if oldest != NoEpoch && h.For(inner.Block{}).Wrapping() == keyring.ByKEK {
		if err := t.checkKEKs(b, floor); err != nil {
			return g, err
		}
	}
	if oldest >= floor.Epoch {
		return g, nil
	}
	if oldest == h.For(inner.Block{}).CurrentEpoch() && !h.For(inner.Block{}).EpochIsShared() {
		g.Below = true // no epoch is left to begin; see Checkpoint
		return g, nil
	}
	g.Epoch = NoEpoch
	var bind keyring.Binding
	c, next, err := b.Op(0)
	for ; err == nil && next > 0; c, next, err = b.Op(next) {
		if c.Deleted {
			continue
		}
		if recordEpoch(c.Record) < floor.Epoch {
			bind.Set(c.ID)
			again, err := h.For(inner.Block{}).Rewrap(ctx, make([]byte, 0, len(c.Record)), c.Record, &bind)
			if err != nil {
				return g, err
			}
			copy(c.Record, again) // a record's size depends on its type alone
		}
		g.Epoch = min(g.Epoch, recordEpoch(c.Record))
	}
	g.Below = g.Epoch < floor.Epoch // as above
	return g, err
}

// lookAtDocument has the keyring take up what other processes have saved, if the floor is another
// than it was when it last did. Who raises a floor has saved before what the floor rests on: that
// an epoch was begun, and may be wrapped with; and saves after it what rests on the floor: that an
// epoch or a KEK is gone. So a keyring that looks after it has seen the floor, and a batch that is
// admitted by that floor, know all that a commit has to: judge would else take a floor that
// is above the present epoch for one that no epoch can be begun for any more. A store that was
// dropped has another floor, and no document.
func (t *Table) lookAtDocument(ctx context.Context, h *keyring.Hold, floor engine.Floor) error {
	if !t.common.Shared || t.judged.Load() == floor.Revision {
		return nil
	}
	if err := h.For(inner.Block{}).Reload(ctx); err != nil {
		return err
	}
	t.judged.Store(floor.Revision)
	return nil
}

// Follow takes up what another process has told of, without waiting for a commit or a check that
// would find it: the floor first, as lookAtDocument has it.
func (t *Table) Follow(ctx context.Context, h *keyring.Hold) error {
	p, ok := t.Part.(engine.Hearer)
	if !ok {
		return nil
	}
	ctx, end := within(ctx, h)
	floor, err := p.LookAtFloor(ctx)
	if err == nil {
		err = h.For(inner.Block{}).Reload(ctx)
	}
	if err == nil {
		t.judged.Store(floor.Revision)
	}
	return end(Damage(err))
}

// checkKEKs refuses a batch with a DEK record under a KEK that has left the keyring's table or is
// leaving it: nobody could open it again. The caller has read floor before, and applies the batch
// by it.
//
// A KEK id is given once, so that it means the KEK that it meant when the record was made. A KEK
// leaves the table only through dropUnusedKEKs, which has the floor refuse the KEK before it
// searches for records: a batch is either applied before the search, and found by it, or refused.
// The KEK that wraps the store is exempt: dropUnusedKEKs does not drop it, even if it was about to
// before the store moved to it.
func (t *Table) checkKEKs(b engine.Batch, floor engine.Floor) error {
	keks, active := t.keys.KEKs()
	c, next, err := b.Op(0)
	for ; err == nil && next > 0; c, next, err = b.Op(next) {
		if c.Deleted {
			continue
		}
		in, err := keyring.ParseRecord(c.Record)
		if err != nil {
			return err
		}
		if in.Wrapping != keyring.ByKEK {
			continue
		}
		if _, listed := keks[in.KEK]; !listed || slices.Contains(floor.KEKs, in.KEK) && in.KEK != active {
			return ErrStale
		}
	}
	return err
}

// Replace applies the ops of a batch whose rows still have the record in was; somebody else has
// written the other rows, lost of them. The result is not durable yet.
func (t *Table) Replace(ctx context.Context, b engine.Batch, was []engine.Was) (lost int, err error) {
	if lost, err = t.Part.Replace(ctx, b, was); err != nil {
		return lost, Damage(err)
	}
	if lost == len(was) {
		return lost, nil
	}
	t.wrote()
	c, next, err := b.Op(0)
	for ; err == nil && next > 0; c, next, err = b.Op(next) {
		t.common.records.replace(t.salt, c.ID, c.Record)
	}
	return lost, nil // the record cache is not trusted
}
