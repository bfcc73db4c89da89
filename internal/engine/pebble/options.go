package pebble

import (
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	defaultCache           = 64 << 20
	defaultMemTable        = 64 << 20
	defaultValueSeparation = 1024
	memTables              = 4

	// formatVersion is the version in which Pebble writes its files, and the newest that Survey
	// reads.
	formatVersion = pebble.FormatValueSeparation
	l0Stop        = 64
	// l0Files is how many tables a compaction of level 0 does not wait for more of. One flush writes
	// hundreds of small ones if it has rows of many partitions (see spans), so that Pebble's default
	// of 500 would begin before L0CompactionThreshold.
	l0Files = 2000
)

// pebbleOptions were measured on sealed blocks of 512 B to 64 KiB, by bench_test.go of package
// block. Against the defaults they make Put about five times as fast, for four memtables of memory.
func pebbleOptions(o Options, lock *Lock, fs vfs.FS, log *logger, room *room, run *running, compactions *scheduler) *pebble.Options {
	p := &pebble.Options{
		FS:       fs,
		ReadOnly: o.ReadOnly,

		DisableTableStats: o.NoTableStats,
		Logger:            log,
		// Otherwise Pebble takes a directory that has lost one empty file for a new one.
		ErrorIfNotExists: !o.Create,
		// Damage in a file is an error to whoever reads it, and the rest of the store stays in use.
		// Pebble's default ends the process.
		EventListener: &pebble.EventListener{
			DataCorruption:  func(info pebble.DataCorruptionInfo) { log.Errorf("%s", info) },
			BackgroundError: new(backgroundErrors).handler(log),
			FlushEnd:        room.flushed,
			CompactionBegin: run.begun,
			CompactionEnd: func(info pebble.CompactionInfo) {
				run.ended(info)
				room.compacted(info)
			},
		},
		FormatMajorVersion:          formatVersion,
		CacheSize:                   o.CacheBytes,
		MemTableSize:                o.MemTableBytes,
		MemTableStopWritesThreshold: memTables,
		LBaseMaxBytes:               512 << 20,
		// With 4, Pebble's default, each byte put is written 2.14 times; with 6, 2.11 times.
		// Look-ups read as many tables.
		L0CompactionThreshold:      6,
		L0CompactionFileThreshold:  l0Files,
		L0StopWritesThreshold:      l0Stop,
		CompactionConcurrencyRange: func() (int, int) { return 1, 2 },
	}
	if lock != nil {
		p.Lock = lock.l
	}
	if p.CacheSize == 0 {
		p.CacheSize = defaultCache
	}
	if p.MemTableSize == 0 {
		p.MemTableSize = defaultMemTable
	}
	for i := range p.TargetFileSizes {
		p.TargetFileSizes[i] = 16 << 20
	}
	for i := range p.Levels {
		p.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	p.Experimental.SpanPolicyFunc = spans
	p.Experimental.CompactionScheduler = compactions
	// A load is in the MANIFEST at once, which Survey reads, and not in the log first.
	p.Experimental.DisableIngestAsFlushable = func() bool { return true }
	// Ciphertext does not compress.
	p.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionNone })

	if o.ValueSeparation >= 0 {
		size := o.ValueSeparation
		if size == 0 {
			size = defaultValueSeparation
		}
		p.Experimental.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy {
			return pebble.ValueSeparationPolicy{
				Enabled:     true,
				MinimumSize: size,
				// Small values (DEK records) in the same tree cause more compactions. At 10 those
				// rewrote blob files that were nearly new: 2.4 bytes written for each, against 2.07
				// at 20.
				MaxBlobReferenceDepth: 20,
				RewriteMinimumAge:     5 * time.Minute,
				TargetGarbageRatio:    0.2,
			}
		}
	}
	return p
}

// backgroundErrors logs what fails behind the callers: flushes and compactions, on a full disk, for
// one, and reads of what the tables hold, by which Pebble plans compactions. A flush Pebble v2.1
// tries again at once and for ever, which keeps a core busy. Open, which may need the flush to
// replay a log, waits; room keeps others from waiting. Pebble may call this with its lock held, so
// that it can only log.
type backgroundErrors struct {
	mu   sync.Mutex
	last time.Time // when one was logged
}

const backgroundTell = 10 * time.Second

func (b *backgroundErrors) handler(log *logger) func(error) {
	return func(err error) {
		b.mu.Lock()
		tell := time.Since(b.last) >= backgroundTell
		if tell {
			b.last = time.Now()
		}
		b.mu.Unlock()
		if tell {
			log.Errorf("work in the background (a flush, a compaction or a look at a table) failed, and is tried again: %v", err)
		}
	}
}

// logger writes Pebble's messages to slog, routine ones (flushes, compactions) as debug output.
type logger struct {
	log   *slog.Logger
	fatal func(string)
}

func (l *logger) Infof(format string, args ...any) {
	if l.log != nil {
		l.log.Debug("pebble: " + fmt.Sprintf(format, args...))
	}
}

func (l *logger) Errorf(format string, args ...any) {
	if l.log != nil {
		l.log.Error("pebble: " + fmt.Sprintf(format, args...))
	}
}

// Fatalf is how Pebble reports a failed write of the log (WAL) or the MANIFEST. It ends the
// process; docs/adr/0006-wal-failure-ends-the-process.md says why.
func (l *logger) Fatalf(format string, args ...any) {
	msg := "pebble: " + fmt.Sprintf(format, args...)
	if l.fatal != nil {
		l.fatal(msg)
	}
	if l.log != nil {
		l.log.Error("blockseal: the storage engine cannot go on", slog.String("error", msg))
	}
	fmt.Fprintln(os.Stderr, "blockseal: the storage engine cannot go on: "+msg)
	os.Exit(1)
}

// ended is deferred by what writes. Pebble sometimes panics over the log, in the middle of a
// commit, instead of calling Fatalf; it cannot go on either.
func (l *logger) ended() {
	if r := recover(); r != nil {
		l.Fatalf("a write to the log failed: %v\n%s", r, debug.Stack())
	}
}
