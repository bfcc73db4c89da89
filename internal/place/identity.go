package place

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/internal/engine/pebble"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
)

// The identity file lies in a directory of stores beside the engine's files. It says which directory
// it is, and what is known of those files. It is text, one field a line, in this order. On disk, and
// must not change; docs/format.md, section 3, defines each line.
//
//	blockseal store 3
//	instance 0123456789abcdef0123456789abcdef
//	state closed
//	path "/var/lib/db/store"
//	stores 1
//	log 12
//	manifest 9
//	file 4096 HEX MANIFEST-000009
//	tag 0 HEX
//	sha256 HEX
//
// The stores are how many were made, at the least, so that an engine that has lost all of them is not
// taken for one that never had any. The state is a pebble.Phase; log and manifest are pebble.Expected's, the files are
// pebble.Inventory's. A tag is inner.Tagger's, of all lines before the first tag, by the store in
// the partition of that number; they ascend. The last line guards against damage, not against
// people.
//
// The file is written before all others, so that a directory without it is not a store. No key
// depends on what it says.
const (
	identityName    = "BLOCKSEAL"
	identityHead    = "blockseal store "
	identityVersion = 3
	maxIdentity     = 4 << 20
)

type identity struct {
	instance inner.InstanceID
	path     string
	stores   uint32 // that were made, at the least
	engine   pebble.Expected
	tags     map[uint32]Tag // closed: of the lines before, by the stores that could make one
}

// Tag is a store's, of the list of files that its directory was closed with.
type Tag [inner.TagSize]byte

// NewInstance returns a random instance.
func NewInstance() (id inner.InstanceID) {
	rand.Read(id[:])
	return id
}

// phaseNames are the words for a pebble.Phase.
func phaseNames() [5]string { return [5]string{"", "creating", "opening", "open", "closed"} }

// untagged returns the file up to the tags.
func (i identity) untagged() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s%d\ninstance %v\n", identityHead, identityVersion, i.instance)
	fmt.Fprintf(&b, "state %s\npath %s\nstores %d\n", phaseNames()[i.engine.Phase], strconv.QuoteToASCII(i.path), i.stores)
	if i.engine.Phase != pebble.Creating {
		fmt.Fprintf(&b, "log %d\nmanifest %d\n", i.engine.Log, i.engine.Manifest)
	}
	if i.engine.Phase == pebble.Closed {
		for _, f := range i.engine.Files {
			fmt.Fprintf(&b, "file %d %x %s\n", f.Size, f.Sum, f.Name)
		}
	}
	return b.Bytes()
}

func (i identity) encode() []byte {
	b := i.untagged()
	for _, number := range slices.Sorted(maps.Keys(i.tags)) {
		b = fmt.Appendf(b, "tag %d %x\n", number, i.tags[number])
	}
	return fmt.Appendf(b, "sha256 %x\n", sha256.Sum256(b))
}

// identityReader reads an identity file line by line, and keeps the first problem.
type identityReader struct {
	lines   []string
	problem string
}

func (r *identityReader) bad(format string, args ...any) {
	if r.problem == "" {
		r.problem = fmt.Sprintf(format, args...)
	}
}

func (r *identityReader) has(word string) bool {
	return len(r.lines) > 0 && strings.HasPrefix(r.lines[0], word+" ")
}

// field returns what follows word, with which the next line must begin.
func (r *identityReader) field(word string) string {
	if !r.has(word) {
		r.bad("has no %s where it belongs", word)
		return ""
	}
	value := r.lines[0][len(word)+1:]
	r.lines = r.lines[1:]
	return value
}

func (r *identityReader) number(value, what string) uint64 {
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil || strconv.FormatUint(n, 10) != value {
		r.bad("says %q for its %s", value, what)
	}
	return n
}

// digits fills dst from lower-case hexadecimal digits.
func (r *identityReader) digits(dst []byte, value, what string) {
	if len(value) != 2*len(dst) || strings.ToLower(value) != value {
		r.bad("has a wrong %s", what)
		return
	}
	if _, err := hex.Decode(dst, []byte(value)); err != nil {
		r.bad("has a wrong %s", what)
	}
}

func (r *identityReader) instance(id *inner.InstanceID, word string) {
	r.digits(id[:], r.field(word), word)
	if *id == (inner.InstanceID{}) {
		r.bad("has no %s", word)
	}
}

func (r *identityReader) file() (f pebble.File) {
	size, rest, _ := strings.Cut(r.field("file"), " ")
	sum, name, _ := strings.Cut(rest, " ")
	f.Size, f.Name = r.number(size, "file's size"), name
	r.digits(f.Sum[:], sum, "file's SHA-256")
	return f
}

func (r *identityReader) tags(i *identity) {
	for last := int64(-1); r.has("tag") && r.problem == ""; {
		number, digits, _ := strings.Cut(r.field("tag"), " ")
		n := r.number(number, "tag's store")
		if n > math.MaxUint32 || int64(n) <= last {
			r.bad("has its tags out of order")
			return
		}
		last = int64(n)
		var tag Tag
		r.digits(tag[:], digits, "tag")
		if i.tags == nil {
			i.tags = map[uint32]Tag{}
		}
		i.tags[uint32(n)] = tag
	}
}

func decodeIdentity(b []byte) (i identity, err error) {
	bad := func(problem string) (identity, error) {
		return identity{}, fmt.Errorf("block: the file %s %s: %w", identityName, problem, keyring.ErrCorrupt)
	}
	number, ok := strings.CutPrefix(string(b), identityHead)
	if !ok {
		return bad(fmt.Sprintf("does not start with %q", identityHead))
	}
	r := identityReader{}
	number, _, _ = strings.Cut(number, "\n")
	if v := r.number(number, "version"); r.problem != "" {
		return bad("has no version")
	} else if v != identityVersion {
		return identity{}, fmt.Errorf("block: the store has layout version %d, this release reads %d: %w", v, identityVersion, keyring.ErrVersion)
	}
	body := len(b) - len("sha256 \n") - 2*sha256.Size
	if body <= 0 || !bytes.Equal(b[body:], fmt.Appendf(nil, "sha256 %x\n", sha256.Sum256(b[:body]))) {
		return bad("is cut off or damaged")
	}
	r.lines = strings.Split(string(b[:body]), "\n")[1:]
	r.instance(&i.instance, "instance")
	state := r.field("state")
	for p, name := range phaseNames() {
		if p > 0 && name == state {
			i.engine.Phase = pebble.Phase(p)
		}
	}
	if i.engine.Phase == 0 {
		r.bad("says that its state is %q", state)
	}
	quoted := r.field("path")
	if i.path, err = strconv.Unquote(quoted); err != nil || strconv.QuoteToASCII(i.path) != quoted {
		r.bad("has a wrong path")
	}
	stores := r.number(r.field("stores"), "number of stores")
	if i.stores = uint32(stores); uint64(i.stores) != stores {
		r.bad("has a wrong number of stores")
	}
	if i.engine.Phase != pebble.Creating {
		i.engine.Log = r.number(r.field("log"), "log")
		i.engine.Manifest = r.number(r.field("manifest"), "manifest")
	}
	if i.engine.Phase == pebble.Closed {
		for r.has("file") {
			i.engine.Files = append(i.engine.Files, r.file())
		}
		r.tags(&i)
	}
	if r.problem == "" && (len(r.lines) != 1 || r.lines[0] != "") {
		r.bad("has lines that do not belong")
	}
	if r.problem != "" {
		return bad(r.problem)
	}
	return i, nil
}

func readIdentity(fsys vfs.FS, dir string) (id identity, err error) {
	f, err := fsys.Open(fsys.PathJoin(dir, identityName))
	if err != nil {
		return id, fmt.Errorf("block: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxIdentity+1))
	if err != nil {
		return id, fmt.Errorf("block: %w", err)
	}
	if len(b) > maxIdentity {
		return id, fmt.Errorf("block: the file %s has more than %d bytes: %w", identityName, maxIdentity, keyring.ErrCorrupt)
	}
	return decodeIdentity(b)
}

// writeIdentity writes a directory's identity file durably and atomically.
func writeIdentity(fsys vfs.FS, dir string, id identity) error {
	b := id.encode()
	if len(b) > maxIdentity {
		return fmt.Errorf("the file %s would have %d bytes, the most is %d: there are %d files to list", identityName, len(b), maxIdentity, len(id.engine.Files))
	}
	path, tmp := fsys.PathJoin(dir, identityName), fsys.PathJoin(dir, identityName+".new")
	f, err := fsys.Create(tmp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := fsys.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(fsys, dir)
}
