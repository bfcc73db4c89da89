package sealfs

import "fmt"

// NoAccess says what a write of a file of layout Log or Once does without access: when the keyring is
// inaccessible, or when it has access and a DEK is needed for which it has to ask, and is not answered: the
// vault, with a keyring that wraps by the KEK (keyring.ByKEK), or the storage of its document. Degraded
// alone is not that: as long as the lease holds, everything goes on. Reads, and files of pages, fail at
// once whatever is chosen; and so does a write, if no waiting mends what keeps it from going on: a DEK
// record that does not authenticate, a keyring that is read only (keyring.ErrReadOnly) or at a limit
// (keyring.ErrLimit), an error of the file system beneath.
type NoAccess uint8

const (
	// Wait waits until access is back, the keyring is closed or [FS.Stop] is called, also when
	// the vault said no: a Pebble whose log fails ends the process. Commits, flushes, compactions
	// and Close of the database wait meanwhile. A vault or a storage that does not answer is asked
	// again after 0.1 seconds, and then less and less often, every 5 seconds at the least, or as late as
	// the vault asks for.
	Wait NoAccess = iota
	// WaitOutage waits when the lease ended because the vault did not answer, or when the vault or
	// the storage does not answer now, and fails when the vault said no. A Pebble above calls
	// Logger.Fatalf then.
	WaitOutage
	// Fail fails at once, also when the vault did not answer once.
	Fail
)

// String returns the name.
func (n NoAccess) String() string {
	switch n {
	case Wait:
		return "Wait"
	case WaitOutage:
		return "WaitOutage"
	case Fail:
		return "Fail"
	}
	return fmt.Sprintf("NoAccess(%d)", uint8(n))
}

// DefaultChunkSize is the default of Options.ChunkSize.
const DefaultChunkSize = 4096

// Options are the options of an FS.
type Options struct {
	// Layout says how a file is written, by the last element of its path. Files that are there
	// have the layout that is in their head. Default: [PebbleLayout].
	Layout func(base string) Layout
	// ChunkSize is the size in bytes, as stored, of the chunks of new files of layout Once: a
	// power of two from 512 to 65,536. Each holds 28 bytes less of the content. A read takes
	// whole chunks. Default: 4,096.
	ChunkSize int
	// NoAccess is what writes do without access. Default: Wait.
	NoAccess NoAccess
}

// Bounds of Options.ChunkSize.
const (
	minChunk = 512
	maxChunk = 64 << 10
)

func (o *Options) withDefaults() (Options, error) {
	var out Options
	if o != nil {
		out = *o
	}
	if out.Layout == nil {
		out.Layout = PebbleLayout
	}
	if out.ChunkSize == 0 {
		out.ChunkSize = DefaultChunkSize
	}
	if c := out.ChunkSize; !validChunk(uint32(c)) || c < 0 {
		return Options{}, fmt.Errorf("sealfs: Options.ChunkSize is %d; it has to be a power of two from %d to %d", c, minChunk, maxChunk)
	}
	if out.NoAccess > Fail {
		return Options{}, fmt.Errorf("sealfs: Options.NoAccess is %v, which is none of them", out.NoAccess)
	}
	return out, nil
}

func validChunk(c uint32) bool { return c >= minChunk && c <= maxChunk && c&(c-1) == 0 }
