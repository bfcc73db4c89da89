package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault/vaulttest"
)

// flaky is a writer that takes as many bytes as it has room for.
type flaky struct {
	bytes.Buffer
	room    int // bytes it will take
	syncErr error
	syncs   int
}

var errFull = errors.New("no space left")

func (f *flaky) Write(p []byte) (int, error) {
	n := min(len(p), f.room)
	f.room -= n
	f.Buffer.Write(p[:n])
	if n < len(p) {
		return n, errFull
	}
	return n, nil
}

func (f *flaky) Sync() error {
	f.syncs++
	return f.syncErr
}

func record(i int) Record { return numbered(i)[i-1] }

func TestLogWritesAndSyncsEachRecord(t *testing.T) {
	w := &flaky{room: 1 << 20}
	log := NewLog(w, nil)
	id := log.Head()
	require.NotZero(t, id.Log, "a log has an identity from the start")
	require.Equal(t, Head{Log: id.Log}, id)
	require.NotEqual(t, id, NewLog(w, nil).Head())
	for i := 1; i <= 3; i++ {
		require.NoError(t, log.Record(t.Context(), record(i)))
		require.Equal(t, i, w.syncs)
		result, err := Verify(bytes.NewReader(w.Bytes()), &VerifyOptions{Head: log.Head()})
		require.NoError(t, err)
		require.Equal(t, uint64(i), result.Records)
	}
	require.NoError(t, log.Close())
	require.NoError(t, log.Close())
	require.ErrorIs(t, log.Record(t.Context(), record(1)), ErrClosed)
	require.ErrorIs(t, log.Record(t.Context(), record(1)), ErrNotRecorded)
}

func TestLogContinuesAChain(t *testing.T) {
	var w bytes.Buffer
	first := NewLog(&w, nil)
	require.NoError(t, first.Record(t.Context(), record(1)))
	second := NewLog(&w, &LogOptions{After: first.Head()})
	require.NoError(t, second.Record(t.Context(), record(2)))
	result, err := Verify(&w, &VerifyOptions{Head: second.Head()})
	require.NoError(t, err)
	require.Equal(t, uint64(2), result.Records)
}

func TestLogFillsInTheTime(t *testing.T) {
	var w bytes.Buffer
	log := NewLog(&w, &LogOptions{Clock: vaulttest.NewClock(epoch)})
	require.NoError(t, log.Record(t.Context(), Record{Event: EventState}))
	require.Contains(t, w.String(), "2026-01-02T03:04:05.000060000Z")
}

// TestShortWrites: a writer that stops anywhere, once, leaves a log in order and
// complete when it goes on.
func TestShortWrites(t *testing.T) {
	lines, _ := chainLines(origin, numbered(3)...)
	for room := range len(bytes.Join(lines, nil)) {
		w := &flaky{room: room}
		log := NewLog(w, &LogOptions{After: origin})
		failed := 0
		for i := 1; i <= 3; i++ {
			if err := log.Record(t.Context(), record(i)); err != nil {
				require.ErrorIs(t, err, ErrNotRecorded)
				require.ErrorIs(t, err, errFull)
				failed++
				w.room = 1 << 20
			}
		}
		require.Equal(t, 1, failed)
		require.NoError(t, log.Close())
		require.Equal(t, string(bytes.Join(lines, nil)), w.String(), "room %d", room)
		require.Equal(t, Stats{Head: log.Head()}, log.Stats())
	}
}

func TestPendingIsBoundedAndLossIsSaid(t *testing.T) {
	w := &flaky{room: 1000}
	log := NewLog(w, &LogOptions{Clock: vaulttest.NewClock(epoch)})
	const total = 1000
	for i := 1; i <= total; i++ {
		err := log.Record(t.Context(), record(i))
		if i > 10 {
			require.ErrorIs(t, err, errFull)
		}
	}
	stats := log.Stats()
	require.NotZero(t, stats.Lost)
	require.NotZero(t, stats.Pending)
	require.Equal(t, uint64(total), stats.Head.Seq+uint64(stats.Pending)+stats.Lost)
	require.Less(t, log.bytes, maxPending+maxLine)

	w.room = 1 << 20
	require.NoError(t, log.Record(t.Context(), Record{Time: epoch, Event: EventOperation, RequestID: "after"}))
	require.Equal(t, Stats{Head: log.Head(), Lost: stats.Lost}, log.Stats())

	result, err := Verify(bytes.NewReader(w.Bytes()), &VerifyOptions{Head: log.Head()})
	require.NoError(t, err)
	require.Equal(t, stats.Lost, result.Lost, "the log says how many are missing")
	require.Equal(t, total-stats.Lost+2, result.Records)
	var got []Record
	for r, err := range Records(&w.Buffer, nil) {
		require.NoError(t, err)
		got = append(got, r)
	}
	n := len(got)
	require.Equal(t, "after", got[n-1].RequestID)
	require.Equal(t, Record{Time: epoch, Event: EventLost, Count: stats.Lost}, got[n-2], "it says so where they would have been")
	require.Equal(t, strconv.Itoa(n-2), got[n-3].RequestID, "the first are kept, in order")
}

func TestCloseWritesWhatItCan(t *testing.T) {
	w := &flaky{}
	log := NewLog(w, nil)
	require.Error(t, log.Record(t.Context(), record(1)))
	w.room = 1 << 20
	require.NoError(t, log.Close())
	_, err := Verify(&w.Buffer, &VerifyOptions{Head: log.Head()})
	require.NoError(t, err)
	require.Equal(t, uint64(1), log.Head().Seq)

	w = &flaky{}
	log = NewLog(w, nil)
	require.Error(t, log.Record(t.Context(), record(1)))
	require.ErrorIs(t, log.Close(), errFull)
	require.Equal(t, Stats{Head: Head{Log: log.Head().Log}, Lost: 1}, log.Stats())
}

func TestSyncErrors(t *testing.T) {
	w := &flaky{room: 1 << 20, syncErr: errors.New("i/o error")}
	log := NewLog(w, nil)
	err := log.Record(t.Context(), record(1))
	require.ErrorIs(t, err, ErrNotRecorded)
	require.ErrorContains(t, err, "i/o error")
	w.syncErr = nil
	require.NoError(t, log.Record(t.Context(), record(2)))
	_, err = Verify(&w.Buffer, &VerifyOptions{Head: log.Head()})
	require.NoError(t, err, "the record is not written twice")

	for _, unsupported := range []error{syscall.EINVAL, errors.ErrUnsupported, &os.PathError{Op: "sync", Err: syscall.EINVAL}} {
		log := NewLog(&flaky{room: 1 << 20, syncErr: unsupported}, nil)
		require.NoError(t, log.Record(t.Context(), record(1)), "a pipe cannot be synced")
	}
	r, p, err := os.Pipe()
	require.NoError(t, err)
	require.NoError(t, NewLog(p, nil).Record(t.Context(), record(1)))
	require.NoError(t, errors.Join(p.Close(), r.Close()))
}

// odd is a writer that breaks io.Writer's rules.
type odd struct {
	n   func(len int) int
	err error
}

func (o odd) Write(p []byte) (int, error) { return o.n(len(p)), o.err }

func TestOddWriters(t *testing.T) {
	less := NewLog(odd{func(n int) int { return n - 1 }, nil}, nil)
	require.ErrorIs(t, less.Record(t.Context(), record(1)), io.ErrShortWrite)
	more := NewLog(odd{func(n int) int { return n + 1 }, nil}, nil)
	require.ErrorContains(t, more.Record(t.Context(), record(1)), "impossible count")
	negative := NewLog(odd{func(int) int { return -1 }, nil}, nil)
	require.ErrorContains(t, negative.Record(t.Context(), record(1)), "impossible count")
	both := NewLog(odd{func(n int) int { return n }, errFull}, nil)
	require.ErrorIs(t, both.Record(t.Context(), record(1)), errFull)
}

func TestConcurrentRecords(t *testing.T) {
	w := &flaky{room: 1 << 20}
	log := NewLog(w, nil)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 25 {
				if err := log.Record(t.Context(), record(1)); err != nil {
					t.Error(err)
				}
				log.Stats()
			}
		})
	}
	wg.Wait()
	result, err := Verify(&w.Buffer, &VerifyOptions{Head: log.Head()})
	require.NoError(t, err)
	require.Equal(t, uint64(200), result.Records)
}

func TestHandlerLog(t *testing.T) {
	var out bytes.Buffer
	log := NewHandlerLog(slog.NewJSONHandler(&out, nil), &LogOptions{After: origin})
	for _, r := range examples() {
		require.NoError(t, log.Record(t.Context(), r))
	}
	var lines strings.Builder
	var levels []string
	for text := range strings.Lines(out.String()) {
		var attrs map[string]any
		require.NoError(t, json.Unmarshal([]byte(text), &attrs))
		lines.WriteString(attrs["record"].(string) + "\n")
		levels = append(levels, attrs["level"].(string)+" "+attrs["msg"].(string)+" "+attrs["event"].(string))
	}
	golden, err := os.ReadFile("testdata/v3.jsonl")
	require.NoError(t, err)
	require.Equal(t, string(golden), lines.String(), "the lines are those of any log")
	require.Equal(t, []string{
		"WARN audit event opened", "INFO vault operation operation", "WARN vault operation operation",
		"WARN audit event lost", "WARN audit event state",
	}, levels)
	second := strings.Split(out.String(), "\n")[1]
	require.Contains(t, second, `"seq":2,"event":"operation","identity":"ingest","store":"store-1","operation":"wrapKey","key":"https://contoso.vault.azure.net/keys/kek"`)
	require.Contains(t, second, `"outcome":"ok","request":"req-7","vaultRequest":"b1f0","duration":1500000,"record":"`)
}

// failing is a handler that fails as told.
type failing struct {
	slog.Handler
	enabled bool
	err     error
	handled int
	ctx     context.Context
}

func (f *failing) Enabled(context.Context, slog.Level) bool { return f.enabled }
func (f *failing) Handle(ctx context.Context, r slog.Record) error {
	f.handled++
	f.ctx = ctx
	return f.err
}

func TestHandlerLogFailures(t *testing.T) {
	f := &failing{}
	log := NewHandlerLog(f, nil)
	err := log.Record(t.Context(), record(1))
	require.ErrorIs(t, err, ErrNotRecorded)
	require.ErrorContains(t, err, "not enabled for level INFO")
	f.enabled, f.err = true, errFull
	require.ErrorIs(t, log.Record(t.Context(), record(2)), errFull)
	require.Equal(t, Stats{Head: Head{Log: log.Head().Log}, Pending: 2}, log.Stats())
	f.err = nil
	type key struct{}
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
	cancel()
	require.NoError(t, log.Record(ctx, record(3)), "a record is written although its operation was cancelled")
	require.Equal(t, "value", f.ctx.Value(key{}))
	require.NoError(t, f.ctx.Err())
	require.Equal(t, 4, f.handled)
	require.Equal(t, uint64(3), log.Head().Seq)
	require.NoError(t, log.Close())
}

func BenchmarkRecord(b *testing.B) {
	r := examples()[1]
	line, _ := encode(origin, r)
	run := func(b *testing.B, log *Log) {
		b.SetBytes(int64(len(line)))
		b.ReportAllocs()
		for b.Loop() {
			if err := log.Record(b.Context(), r); err != nil {
				b.Fatal(err)
			}
		}
		if err := log.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("discard", func(b *testing.B) { run(b, NewLog(io.Discard, nil)) })
	b.Run("directory", func(b *testing.B) {
		log, err := OpenDir(b.TempDir(), nil)
		require.NoError(b, err)
		run(b, log)
	})
}

func BenchmarkVerify(b *testing.B) {
	lines, _ := chainLines(origin, numbered(1000)...)
	log := bytes.Join(lines, nil)
	b.SetBytes(int64(len(log)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Verify(bytes.NewReader(log), nil); err != nil {
			b.Fatal(err)
		}
	}
}
