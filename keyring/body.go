package keyring

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"
	"time"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/secret"
)

// The body of a keyring document: what is secret. Integers are big-endian; on
// disk, and must not change.
//
//	offset  size  field
//	     0    32  store secret, fixed for the store's life
//	    32     1  wrapping of new DEKs: 1 ByKeyring, 2 ByKEK
//	    33     8  EpochMaxDEKs
//	    41     8  EpochMaxAge in seconds, 0: for ever
//	    49     8  RekeyAfter in seconds, 0: never
//	    57     4  next epoch id
//	    61    16  id of the work that is under way, random; zeros: none is
//	    77    16  instance that the epochs are of; zeros: none was given
//	    93     4  epochs up to this one are known to copies, and wrap nothing more; 0: none
//	    97     4  next KEK id of the header's table; none is given twice
//	   101     2  n, the number of epochs, 1 to 4,096
//	   103   52n  by ascending id; the last is the current one:
//	              4   epoch id, from 1, never used again
//	              8   created, seconds since 1970-01-01 UTC
//	              8   DEKs: how many were reserved, by all keyrings together; it has wrapped no more
//	              32  epoch key
const (
	storeSecretSize = 32
	fixedBody       = 103
	epochEntry      = 52
	// MaxEpochs is the most epochs a keyring holds; rotation that drops old ones
	// makes room.
	MaxEpochs = 4096
)

// policy is what the document remembers of the options, so that a rotation
// policy does not depend on every later Open repeating it.
type policy struct {
	wrapping   Wrapping
	maxDEKs    uint64
	maxAge     time.Duration // 0: for ever; whole seconds
	rekeyAfter time.Duration // 0: never; whole seconds
}

// epochKey is one epoch as the body holds it.
type epochKey struct {
	id       uint32
	created  time.Time // whole seconds
	reserved uint64    // how many DEKs were reserved: a bound on how many it has wrapped
	key      [dek.Size]byte
}

// body is the decoded secret part of a document. Call destroy when done.
type body struct {
	storeSecret [storeSecretSize]byte
	policy      policy
	nextEpoch   uint32
	work        inner.WorkID
	instance    inner.InstanceID
	shared      uint32 // see forBlock.Share
	nextKEK     uint32 // see header.activate
	epochs      []epochKey

	// counts says of what is about to be saved that it says nothing new but how many DEKs are
	// reserved, and what work is under way: not in the document.
	counts bool
}

// news is what of a document others with a keyring on it have to take up.
type news struct {
	policy   policy
	instance inner.InstanceID
	shared   uint32
	epochs   []uint32
	keks     []kekEntry
	active   uint32
}

func newsOf(h *header, b *body) news {
	n := news{b.policy, b.instance, b.shared, nil, slices.Clone(h.keks), h.active}
	for i := range b.epochs {
		n.epochs = append(n.epochs, b.epochs[i].id)
	}
	return n
}

func (n news) equal(o news) bool {
	return n.policy == o.policy && n.instance == o.instance && n.shared == o.shared && n.active == o.active &&
		slices.Equal(n.epochs, o.epochs) && slices.Equal(n.keks, o.keks)
}

func (b *body) destroy() {
	clear(b.storeSecret[:])
	for i := range b.epochs {
		clear(b.epochs[i].key[:])
	}
}

// sum tells the key from every other, and gives nothing of it away: it is random.
func (k *epochKey) sum() (sum [sha256.Size]byte) {
	secret.Do(func() {
		h := sha256.New()
		h.Write([]byte("blockseal epoch v1"))
		h.Write(k.key[:])
		h.Sum(sum[:0])
	})
	return sum
}

func (b *body) current() *epochKey { return &b.epochs[len(b.epochs)-1] }

// encode returns the body's bytes, of exactly the capacity they need so that no
// partial copy is left behind by growing.
func (b *body) encode() []byte {
	p := make([]byte, 0, fixedBody+epochEntry*len(b.epochs))
	p = append(p, b.storeSecret[:]...)
	p = append(p, byte(b.policy.wrapping))
	p = binary.BigEndian.AppendUint64(p, b.policy.maxDEKs)
	p = binary.BigEndian.AppendUint64(p, uint64(b.policy.maxAge/time.Second))
	p = binary.BigEndian.AppendUint64(p, uint64(b.policy.rekeyAfter/time.Second))
	p = binary.BigEndian.AppendUint32(p, b.nextEpoch)
	p = append(p, b.work[:]...)
	p = append(p, b.instance[:]...)
	p = binary.BigEndian.AppendUint32(p, b.shared)
	p = binary.BigEndian.AppendUint32(p, b.nextKEK)
	p = binary.BigEndian.AppendUint16(p, uint16(len(b.epochs)))
	for i := range b.epochs {
		e := &b.epochs[i]
		p = binary.BigEndian.AppendUint32(p, e.id)
		p = binary.BigEndian.AppendUint64(p, uint64(e.created.Unix()))
		p = binary.BigEndian.AppendUint64(p, e.reserved)
		p = append(p, e.key[:]...)
	}
	return p
}

// decodeBody parses what encode returned. It has been authenticated, so that an
// error here is a fault of the program that wrote it, not of a disk.
func decodeBody(p []byte) (*body, error) {
	if len(p) < fixedBody {
		return nil, corrupt("the document's body has %d bytes, want at least %d", len(p), fixedBody)
	}
	maxAge, ok1 := seconds(p[41:])
	rekeyAfter, ok2 := seconds(p[49:])
	b := &body{
		policy: policy{
			wrapping:   Wrapping(p[32]),
			maxDEKs:    binary.BigEndian.Uint64(p[33:]),
			maxAge:     maxAge,
			rekeyAfter: rekeyAfter,
		},
		nextEpoch: binary.BigEndian.Uint32(p[57:]),
		work:      inner.WorkID(p[61:77]),
		instance:  inner.InstanceID(p[77:93]),
		shared:    binary.BigEndian.Uint32(p[93:]),
		nextKEK:   binary.BigEndian.Uint32(p[97:]),
	}
	n := int(binary.BigEndian.Uint16(p[101:]))
	switch {
	case b.policy.wrapping != ByKeyring && b.policy.wrapping != ByKEK,
		b.policy.maxDEKs == 0 || b.policy.maxDEKs > MaxEpochDEKs,
		!ok1 || !ok2, b.shared >= b.nextEpoch, b.nextKEK == 0:
		return nil, corrupt("the document's policy is out of bounds")
	case n == 0 || n > MaxEpochs || len(p) != fixedBody+n*epochEntry:
		return nil, corrupt("the document's body has %d bytes for %d epochs", len(p), n)
	}
	copy(b.storeSecret[:], p)
	b.epochs = make([]epochKey, n)
	last := uint32(0)
	for i := range b.epochs {
		q := p[fixedBody+i*epochEntry:]
		e := &b.epochs[i]
		e.id = binary.BigEndian.Uint32(q)
		e.created = time.Unix(int64(binary.BigEndian.Uint64(q[4:])), 0).UTC()
		e.reserved = binary.BigEndian.Uint64(q[12:])
		copy(e.key[:], q[20:])
		if e.id <= last || e.id >= b.nextEpoch {
			b.destroy()
			return nil, corrupt("the document's epoch %d is out of order", e.id)
		}
		last = e.id
	}
	return b, nil
}

func seconds(p []byte) (time.Duration, bool) {
	s := binary.BigEndian.Uint64(p)
	if s > math.MaxInt64/uint64(time.Second) {
		return 0, false
	}
	return time.Duration(s) * time.Second, true
}
