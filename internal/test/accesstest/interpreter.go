package accesstest

import (
	"context"
	"maps"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// stride is the longest stretch of time that passes before the interpreter looks.
const stride = 5 * time.Second

// interpreter runs one script.
type interpreter struct {
	t     *testing.T
	ctx   context.Context
	clock *vaulttest.Clock
	world World
	opts  block.Options
	fs    vfs.FS

	store  *block.Store
	dir    string // of the store that is open
	lease  time.Duration
	blocks map[string]map[string]string // what was acknowledged, by directory and id

	witness *witness
}

func runScript(t *testing.T, clock *vaulttest.Clock, w World, lines []line) {
	in := &interpreter{t: t, ctx: t.Context(), clock: clock, world: w, fs: vfs.NewMem(), blocks: map[string]map[string]string{"store": {}}}
	in.witness = &witness{Vault: w.Vault, clock: clock}
	in.defaults()
	defer in.close()
	in.open("store", "")
	for _, l := range lines {
		in.run(l)
		synctest.Wait()
	}
}

func (in *interpreter) defaults() {
	in.opts = block.Options{Pebble: block.PebbleOptions{FS: in.fs, MemTable: 1 << 20, BlockCache: 1 << 20}, RecordCache: 1 << 16}
	in.opts.Keyring.Clock = in.clock
}

func (in *interpreter) run(l line) {
	t := in.t
	switch l.words[0] {
	case "option":
		in.option(l)
	case "open":
		_, sentinel, _ := l.refused()
		in.open(l.arg(1), sentinel)
	case "close":
		in.close()
	case "put":
		words, sentinel, refused := l.refused()
		require.Len(t, words, 3, "%s", l)
		err := in.store.Put(in.ctx, []byte(words[1]), []byte(words[2]))
		if refused {
			in.refused(l, err, sentinel)
			return
		}
		require.NoError(t, err, "%s", l)
		in.blocks[in.dir][words[1]] = words[2]
	case "get":
		got, err := in.store.Get(in.ctx, []byte(l.arg(1)), nil)
		if _, sentinel, refused := l.refused(); refused {
			require.Empty(t, got, "%s", l)
			in.refused(l, err, sentinel)
			return
		}
		require.NoError(t, err, "%s", l)
		require.Equal(t, "=", l.arg(2), "%s", l)
		require.Equal(t, l.arg(3), string(got), "%s", l)
	case "reason":
		_, err := in.store.Get(in.ctx, []byte("a"), nil)
		require.Error(t, err, "%s", l)
		got := in.anonymous(err.Error())
		if strings.Contains(l.quoted(), "retry after <time>") { // what is left of it
			got = retryAfter.ReplaceAllString(got, "retry after <time>")
		}
		require.Equal(t, l.quoted(), got, "%s", l)
	case "state":
		in.state(l)
	case "revalidate":
		var err error
		in.whileTimePasses(func() { err = in.store.Revalidate(in.ctx) })
		if _, sentinel, refused := l.refused(); refused {
			require.ErrorIs(t, err, sentinelOf(t, l, sentinel), "%s", l)
			return
		}
		require.Equal(t, "ok", l.arg(1), "%s", l)
		require.NoError(t, err, "%s", l)
	case "checkpoint":
		require.NoError(t, in.store.Checkpoint(in.ctx, l.arg(1)), "%s", l)
		in.blocks[l.arg(1)] = maps.Clone(in.blocks[in.dir])
	case "advance":
		in.advance(l, in.duration(l, l.arg(1)))
	case "step":
		in.clock.Step(in.duration(l, l.arg(1)))
	case "vault":
		in.vault(l)
	case "told":
		want := l.words[1:]
		if l.arg(1) == "nothing" {
			want = nil
		}
		require.Equal(t, strings.Join(want, " "), strings.Join(in.world.Told(), " "), "%s", l)
	default:
		t.Fatalf("%s: no such command", l)
	}
}

// vault does a verb, which the vault must do or, if the script says so, refuse.
func (in *interpreter) vault(l line) {
	words, sentinel, refused := l.refused()
	args := strings.Join(words[2:], " ")
	do := in.world.Administration[l.arg(1)]
	if do == nil {
		in.world.Verbs[l.arg(1)](args)
		return
	}
	err := do(args)
	if refused {
		require.ErrorIs(in.t, err, sentinelOf(in.t, l, sentinel), "%s", l)
		return
	}
	require.NoError(in.t, err, "%s", l)
}

func (in *interpreter) duration(l line, s string) time.Duration {
	d, err := duration(s)
	require.NoError(in.t, err, "%s", l)
	return d
}

// open opens a store with the key as the customer names it, without a version.
func (in *interpreter) open(dir, sentinel string) {
	in.close()
	var s *block.Store
	var err error
	in.whileTimePasses(func() {
		s, err = block.Open(in.ctx, dir, kek.New(in.witness, in.world.Key.Versionless()), &in.opts)
	})
	if sentinel != "" {
		require.ErrorIs(in.t, err, sentinelOf(in.t, line{}, sentinel))
		return
	}
	require.NoError(in.t, err)
	in.store, in.dir = s, dir
	in.lease = in.opts.Keyring.Lease
	if in.lease == 0 {
		in.lease = keyring.DefaultLease
	}
}

// close closes the store that is open; one that serves has every block before.
func (in *interpreter) close() {
	if in.store == nil {
		return
	}
	if in.serves() {
		for id, want := range in.blocks[in.dir] {
			got, err := in.store.Get(in.ctx, []byte(id), nil)
			require.NoError(in.t, err)
			require.Equal(in.t, want, string(got))
		}
	}
	require.NoError(in.t, in.store.Close())
	require.Equal(in.t, keyring.Closed, in.store.State().Status)
	in.store = nil
}

func (in *interpreter) option(l line) {
	k := &in.opts.Keyring
	name, value, _ := strings.Cut(l.arg(1), "=")
	switch name {
	case "default":
		in.defaults()
	case "ManualRevalidation":
		k.ManualRevalidation = true
	case "RequireAccess":
		in.opts.RequireAccess = true
	case "ReadOnly":
		in.opts.ReadOnly = true
	case "PinVersion":
		k.PinVersion = true
	case "Lease":
		k.Lease = in.duration(l, value)
	default:
		in.t.Fatalf("%s: no such option", l)
	}
}

func (in *interpreter) state(l line) {
	st := in.store.State()
	require.Equal(in.t, l.arg(1), st.Status.String(), "%s\ncause: %v", l, st.Cause)
	if l.arg(2) == "" {
		if st.Status == keyring.Available {
			require.NoError(in.t, st.Cause, "%s", l)
		}
		return
	}
	require.ErrorIs(in.t, st.Cause, sentinelOf(in.t, l, l.arg(2)), "%s", l)
}

// refused checks the error of an operation that the store must not do.
func (in *interpreter) refused(l line, err error, sentinel string) {
	want := sentinelOf(in.t, l, sentinel)
	require.ErrorIs(in.t, err, want, "%s", l)
	if want != block.ErrReadOnly {
		require.ErrorIs(in.t, err, block.ErrInaccessible, "%s", l)
	}
}

// witness sees when the last unwrap that succeeded was sent.
type witness struct {
	vault.Vault
	clock *vaulttest.Clock
	last  atomic.Int64
}

func (w *witness) UnwrapKey(ctx context.Context, wrapped vault.Wrapped) ([]byte, error) {
	sent := w.clock.Elapsed()
	got, err := w.Vault.UnwrapKey(ctx, wrapped)
	if err == nil && ctx.Err() == nil {
		w.last.Store(int64(sent))
	}
	return got, err
}

// advance lets time pass and looks often.
func (in *interpreter) advance(l line, d time.Duration) {
	if in.store == nil { // nothing to look at, however long
		in.clock.Advance(d)
		synctest.Wait()
		return
	}
	for d > 0 {
		step := min(d, stride)
		d -= step
		in.clock.Advance(step)
		synctest.Wait()
		in.look(l)
	}
}

// whileTimePasses does what may wait for the clock, as a vault's client does that asks
// again before it believes a refusal.
func (in *interpreter) whileTimePasses(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	for {
		synctest.Wait()
		select {
		case <-done:
			return
		default:
			in.clock.Advance(time.Second)
		}
	}
}

func (in *interpreter) serves() bool {
	s := in.store.State().Status
	return s == keyring.Available || s == keyring.Degraded
}

// look checks what holds at every moment: the state is the truth about reads and
// writes, and an unwrap is not older than the lease.
func (in *interpreter) look(l line) {
	if in.store == nil {
		return
	}
	t, st := in.t, in.store.State()
	got, err := in.store.Get(in.ctx, []byte("a"), nil)
	if in.serves() {
		require.NoError(t, err, "%s: at %v: %v", l, in.clock.Elapsed(), st)
		require.Equal(t, in.blocks[in.dir]["a"], string(got))
		require.Less(t, in.clock.Elapsed()-time.Duration(in.witness.last.Load()), in.lease, "%s: at %v: %v", l, in.clock.Elapsed(), st)
		return
	}
	require.ErrorIs(t, err, block.ErrInaccessible, "%s: at %v: %v", l, in.clock.Elapsed(), st)
	require.Empty(t, got)
	err = in.store.Put(in.ctx, []byte("never"), []byte("written"))
	require.ErrorIs(t, err, block.ErrInaccessible, "%s: at %v: %v", l, in.clock.Elapsed(), st)
	if st.Cause != nil {
		require.ErrorIs(t, err, st.Cause)
	}
}

var (
	version    = regexp.MustCompile(`\b[0-9a-f]{32}\b`)
	retryAfter = regexp.MustCompile(`retry after [0-9hms.]+`)
	// The moment of a check is drawn by lot, and not every vault says what time it is.
	assumed = regexp.MustCompile(`the time was taken to be \S+ by this machine's clock, which (may be wrong|agrees with the vault's)`)
)

// anonymous replaces what differs from run to run.
func (in *interpreter) anonymous(text string) string {
	text = strings.ReplaceAll(text, in.world.Key.Versionless().String(), "<key>")
	since := "inaccessible since " + in.store.State().Since.UTC().Format(time.RFC3339)
	text = strings.ReplaceAll(text, since, "inaccessible since <since>")
	if in.world.Hide != nil {
		text = in.world.Hide.Replace(text)
	}
	text = assumed.ReplaceAllString(text, "<assumed>")
	return version.ReplaceAllString(text, "<version>")
}

// sentinelOf returns the error that scripts know by a name.
func sentinelOf(t *testing.T, l line, name string) error {
	err, ok := map[string]error{
		"ErrKeyNotFound":    vault.ErrKeyNotFound,
		"ErrKeyDeleted":     vault.ErrKeyDeleted,
		"ErrKeyExists":      vault.ErrKeyExists,
		"ErrKeyDisabled":    vault.ErrKeyDisabled,
		"ErrKeyExpired":     vault.ErrKeyExpired,
		"ErrKeyNotYetValid": vault.ErrKeyNotYetValid,
		"ErrAccessDenied":   vault.ErrAccessDenied,
		"ErrWrongTenant":    vault.ErrWrongTenant,
		"ErrUnsupportedKey": vault.ErrUnsupportedKey,
		"ErrBadCiphertext":  vault.ErrBadCiphertext,
		"ErrThrottled":      vault.ErrThrottled,
		"ErrUnavailable":    vault.ErrUnavailable,
		"ErrInaccessible":   block.ErrInaccessible,
		"ErrReadOnly":       block.ErrReadOnly,
	}[name]
	require.True(t, ok, "%s: no error %q", l, name)
	return err
}
