package pebble

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/batchrepr"
	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/wal"

	"github.com/blockseal/blockseal/internal/engine"
)

// Phase is how far a directory's engine is in its life, as its owner has saved it.
type Phase uint8

const (
	// Creating: nothing in it was acknowledged yet.
	Creating Phase = iota + 1
	// Opening: Open was called and may not have returned.
	Opening
	// Opened: Open has returned, and Close has not.
	Opened
	// Closed: Close has returned, and nothing has changed since.
	Closed
)

// Expected is what an engine's owner knows of its files.
type Expected struct {
	Phase Phase
	// Log is the number of a log that was needed, and Manifest that of the MANIFEST in use, when
	// Phase was saved; 0: not known.
	Log, Manifest uint64
	Files         []File // Closed: see Inventory
}

// Survey checks the files in dir before Pebble sees them, and changes nothing. Without the marker
// of a MANIFEST Pebble would create an engine and delete what that does not need; it opens without
// logs that are gone, and does not look for blob files. docs/adr/0010-survey.md has the argument.
//
// Survey cannot notice that the end of the last log is missing, if the engine was not closed: a
// crash may leave it so. Nor can it notice that a table's content was changed, but that another
// table stands in its place; after a Close only that two tables stand in each other's.
//
// log is the number of a log that is needed now, for the next Expected.Log.
//
// Errors: engine.ErrCorrupt, which names all that is missing; engine.ErrVersion.
func Survey(dir string, fsys vfs.FS, want Expected) (log uint64, err error) {
	if fsys == nil {
		fsys = vfs.Default
	}
	names, err := fsys.List(dir)
	if err != nil {
		return 0, err
	}
	s := &survey{dir: dir, fs: fsys, there: map[string]bool{}, want: want}
	for _, n := range names {
		s.there[n] = true
	}
	if err := s.look(names); err != nil {
		return 0, err
	}
	return s.log, s.verdict()
}

type survey struct {
	dir      string
	fs       vfs.FS
	there    map[string]bool
	want     Expected
	log      uint64
	problems []string
}

func (s *survey) find(format string, args ...any) {
	s.problems = append(s.problems, fmt.Sprintf(format, args...))
}

func (s *survey) verdict() error {
	if len(s.problems) == 0 {
		return nil
	}
	text, more := s.problems, ""
	if len(text) > 10 {
		text, more = text[:10], fmt.Sprintf(", and %d more", len(s.problems)-10)
	}
	return fmt.Errorf("%w: the files are not those that were left there: %s%s; nothing was changed; restore the whole directory, into an empty one",
		engine.ErrCorrupt, strings.Join(text, ", "), more)
}

func (s *survey) look(names []string) error {
	if s.want.Phase == Closed {
		have, err := Inventory(s.dir, s.fs)
		if err != nil {
			return err
		}
		if s.problems = compare(s.want.Files, have); len(s.problems) > 0 {
			return nil
		}
	}
	if err := s.format(names); err != nil {
		return err
	}
	name, number, err := s.current(names)
	if err != nil || name == "" {
		return err
	}
	m, err := readManifest(s.fs, s.fs.PathJoin(s.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		s.find("%s is missing", name)
		return nil
	}
	if err != nil {
		return err
	}
	if number < s.want.Manifest {
		s.find("MANIFEST-%06d was in use, and marker.manifest names %s, which is older", s.want.Manifest, name)
	}
	tables := map[uint64]uint64{}
	for n, t := range m.tables {
		tables[n] = t.size
	}
	if err := errors.Join(s.sizes(tables, "%06d.sst"), s.sizes(m.blobs, "%06d.blob")); err != nil {
		return err
	}
	s.ends(m)
	return s.logs(names, m)
}

// marker returns the value of the newest marker of a name: an empty file marker.NAME.COUNT.VALUE.
func marker(names []string, name string) (value string, found bool) {
	var newest uint64
	for _, n := range names {
		rest, ok := strings.CutPrefix(n, "marker."+name+".")
		count, v, ok2 := strings.Cut(rest, ".")
		c, err := strconv.ParseUint(count, 10, 64)
		if ok && ok2 && err == nil && (!found || c > newest) {
			value, found, newest = v, true, c
		}
	}
	return value, found
}

func (s *survey) format(names []string) error {
	value, found := marker(names, "format-version")
	if !found {
		if s.want.Phase != Creating {
			s.find("marker.format-version.* is missing")
		}
		return nil
	}
	v, err := strconv.ParseUint(value, 10, 64)
	switch {
	case err != nil || v == 0:
		s.find("marker.format-version.* says %q, which is no version", value)
	case v > uint64(formatVersion) || v < uint64(pebble.FormatMinSupported):
		return fmt.Errorf("%w: the engine's files have version %d, this release reads %d to %d; open it with a release that does",
			engine.ErrVersion, v, pebble.FormatMinSupported, formatVersion)
	}
	return nil
}

// current returns the MANIFEST in use, or "" if there is none: a creation may have been cut off
// before there was anything to lose.
func (s *survey) current(names []string) (name string, number uint64, err error) {
	name, found := marker(names, "manifest")
	if found {
		digits, ok := strings.CutPrefix(name, "MANIFEST-")
		if number, err = strconv.ParseUint(digits, 10, 64); !ok || err != nil {
			s.find("marker.manifest.* names %q, which is no MANIFEST", name)
			return "", 0, nil
		}
		return name, number, nil
	}
	if s.want.Phase != Creating {
		s.find("marker.manifest.* is missing")
		return "", 0, nil
	}
	// Pebble makes the first MANIFEST and its marker before anything else.
	for _, n := range names {
		if strings.HasSuffix(n, ".sst") || strings.HasSuffix(n, ".blob") || strings.HasSuffix(n, ".log") || strings.HasPrefix(n, "OPTIONS-") {
			s.find("marker.manifest.* is missing, and there is %s", n)
		}
	}
	return "", 0, nil
}

func (s *survey) sizes(files map[uint64]uint64, format string) error {
	for n, want := range files {
		name := fmt.Sprintf(format, n)
		if !s.there[name] {
			s.find("%s is missing", name)
			continue
		}
		st, err := s.fs.Stat(s.fs.PathJoin(s.dir, name))
		if err != nil {
			return err
		}
		if uint64(st.Size()) != want {
			s.find("%s has %d bytes, not %d", name, st.Size(), want)
		}
	}
	return nil
}

// logs checks the logs that are needed. The first of them is:
//
//   - Expected.Log, if the MANIFEST needs logs from that one on or from an earlier one: nothing of
//     that log was written to a table.
//   - Otherwise the first log that the MANIFEST needs. While the engine is open, Pebble has made
//     that log before it wrote so into the MANIFEST; during Open it writes so first.
//
// The logs after it are a chain: each entry has the number of its first op and the count of its
// ops, and the next entry goes on from there.
func (s *survey) logs(names []string, m *manifest) error {
	var options bool
	for _, n := range names {
		options = options || strings.HasPrefix(n, "OPTIONS-")
	}
	all, err := wal.Scan(wal.Dir{FS: s.fs, Dirname: s.dir})
	if err != nil {
		return err
	}
	var needed wal.Logs
	for i, l := range all {
		if uint64(l.Num) >= m.log {
			needed = all[i:]
			break
		}
	}
	if s.want.Phase == Creating {
		// Pebble makes the log, durably, before the first OPTIONS.
		if options && len(needed) == 0 {
			s.find("the log is missing")
		}
		return s.chain(needed)
	}
	if !options {
		s.find("OPTIONS-* is missing")
	}
	s.log = max(s.want.Log, m.log)
	if _, found := all.Get(wal.NumWAL(s.log)); !found {
		switch first := firstOf(needed, s.want.Log); {
		case s.want.Phase == Closed, s.want.Phase == Opening && m.log > s.want.Log, s.log == 0 && len(needed) > 0:
			s.log = first
		default:
			s.find("the log %06d.log is missing", s.log)
		}
	}
	if s.want.Phase == Closed {
		return nil // the list has vouched for the files' contents
	}
	return s.chain(needed)
}

func firstOf(logs wal.Logs, none uint64) uint64 {
	if len(logs) == 0 {
		return none
	}
	return uint64(logs[0].Num)
}

// chain checks that each log goes on where the one before ends. Pebble judges where the last one
// ends.
func (s *survey) chain(logs wal.Logs) error {
	var next uint64 // the number after those that were read; 0: none was
	empty := ""     // the last log, if it had no entries
	for _, l := range logs {
		r := l.OpenForRead()
		records := 0
		for {
			rec, _, err := r.NextRecord()
			var head [batchrepr.HeaderLen]byte
			if err == nil {
				_, err = io.ReadFull(rec, head[:])
			}
			if err != nil && !endOfLog(err) {
				return errors.Join(err, r.Close())
			}
			if err != nil {
				break
			}
			h, _ := batchrepr.ReadHeader(head[:])
			if records++; records == 1 && empty != "" {
				s.find("%s is empty, and there is %06d.log after it", empty, l.Num)
				empty = ""
			}
			if seq := uint64(h.SeqNum); next != 0 && seq > next && !toTables(seq-next, head[:], rec) {
				s.find("changes %d to %d are missing before %06d.log", next, seq-1, l.Num)
			}
			next = max(next, uint64(h.SeqNum)+uint64(h.Count))
		}
		if err := r.Close(); err != nil {
			return err
		}
		if records == 0 {
			empty = fmt.Sprintf("%06d.log", l.Num)
		}
	}
	return nil
}

// toTables reports whether an entry says that so many numbers before it were given to tables.
func toTables(missing uint64, head []byte, rest io.Reader) bool {
	body, err := io.ReadAll(io.LimitReader(rest, 64))
	return err == nil && ingestedBefore(append(head, body...)) == missing
}

// endOfLog reports whether an error says that a log has no more whole entries.
func endOfLog(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, record.ErrUnexpectedEOF) || record.IsInvalidRecord(err)
}

// Position returns Expected's numbers for an engine that was just opened: of its newest log, which
// Open has begun, and of the MANIFEST in use.
func Position(dir string, fsys vfs.FS) (log, manifest uint64, err error) {
	if fsys == nil {
		fsys = vfs.Default
	}
	names, err := fsys.List(dir)
	if err != nil {
		return 0, 0, err
	}
	for _, n := range names {
		if num, _, ok := wal.ParseLogFilename(n); ok {
			log = max(log, uint64(num))
		}
	}
	value, _ := marker(names, "manifest")
	manifest, err = strconv.ParseUint(strings.TrimPrefix(value, "MANIFEST-"), 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("%w: marker.manifest names %q", engine.ErrCorrupt, value)
	}
	return log, manifest, nil
}
