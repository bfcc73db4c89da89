package keyring

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// An anchor's file. On disk, and must not change.
//
//	offset  size  field
//	     0     8  "BSANCHOR"
//	     8     2  format version, 1
//	    10    32  fingerprint
//	    42     8  generation of the keyring document
//	    50     8  sequence number of the database on top
//	    58    32  SHA-256 of bytes 0 to 57
//
// The hash is against damage: whoever can write the file needs no key to make it.
const (
	anchorMagic   = "BSANCHOR"
	anchorVersion = 1
	anchorSize    = 90
)

// encodeAnchor returns the file of a point, whose fingerprint must be one.
func encodeAnchor(p Point) ([]byte, error) {
	fingerprint, err := hex.DecodeString(p.Fingerprint)
	if err != nil || len(fingerprint) != sha256.Size || hex.EncodeToString(fingerprint) != p.Fingerprint {
		return nil, fmt.Errorf("%q is not a fingerprint, which is %d hexadecimal digits", p.Fingerprint, 2*sha256.Size)
	}
	b := binary.BigEndian.AppendUint16([]byte(anchorMagic), anchorVersion)
	b = append(b, fingerprint...)
	b = binary.BigEndian.AppendUint64(b, p.Generation)
	b = binary.BigEndian.AppendUint64(b, p.Sequence)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...), nil
}

func decodeAnchor(b []byte) (Point, error) {
	switch {
	case len(b) < len(anchorMagic)+2 || string(b[:len(anchorMagic)]) != anchorMagic:
		return Point{}, corrupt("it is not the file of an anchor, or its beginning is damaged")
	case binary.BigEndian.Uint16(b[8:]) != anchorVersion:
		return Point{}, fmt.Errorf("keyring: the anchor has format version %d, this release reads %d: %w", binary.BigEndian.Uint16(b[8:]), anchorVersion, ErrVersion)
	case len(b) != anchorSize:
		return Point{}, corrupt("the anchor has %d bytes, not %d", len(b), anchorSize)
	}
	if sum := sha256.Sum256(b[:58]); !bytes.Equal(sum[:], b[58:]) {
		return Point{}, corrupt("the anchor's hash is not the hash of what it says")
	}
	return Point{hex.EncodeToString(b[10:42]), binary.BigEndian.Uint64(b[42:]), binary.BigEndian.Uint64(b[50:])}, nil
}

// FileAnchor returns an [Anchor] in a file of 90 bytes, which is to be on another disk than
// the keyring, in a directory that exists. The best place is a directory of its own on
// that disk: if the disk is not mounted the directory is not there, which is an error,
// whereas a file that is not there is an anchor that holds nothing.
//
// Advance replaces the file atomically, and syncs it and the directory, under a lock of
// the file path.lock, for which it waits as long as its context allows. It leaves that
// file behind, empty, and after a crash path.new. Damage matches [ErrCorrupt]: what is
// damaged is moved away by hand, once it is known that the store is as it should be. On
// operating systems without a lock that ends with its process (others than Linux, macOS,
// the BSDs and Windows), Advance returns an error that matches [errors.ErrUnsupported].
func FileAnchor(path string) Anchor { return fileAnchor(path) }

type fileAnchor string

func (f fileAnchor) path() string { return filepath.Clean(string(f)) }

// Load implements [Anchor]. It needs no lock: it finds the old file or the new one.
func (f fileAnchor) Load(ctx context.Context) (Point, error) {
	if err := ctx.Err(); err != nil {
		return Point{}, err
	}
	p, err := f.read()
	if err != nil {
		return Point{}, fmt.Errorf("keyring: the anchor %s: %w", f.path(), err)
	}
	return p, nil
}

// read returns the zero Point if there is no file in a directory that there is. A link is
// refused: Advance replaces the file, and would put one on the link's own disk, which may
// be the store's.
func (f fileAnchor) read() (Point, error) {
	if _, err := os.Lstat(f.path()); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Dir(f.path())); err != nil {
			return Point{}, fmt.Errorf("its directory is not to be had; is the disk mounted? %w", err)
		}
		return Point{}, nil
	}
	b, err := readFile(f.path(), anchorSize)
	if err != nil { // also that it is gone since: nothing says that it held nothing
		return Point{}, err
	}
	return decodeAnchor(b)
}

// Advance implements [Anchor].
func (f fileAnchor) Advance(ctx context.Context, to Point) error {
	if err := f.advance(ctx, to); err != nil {
		return fmt.Errorf("keyring: the anchor %s: %w", f.path(), err)
	}
	return nil
}

func (f fileAnchor) advance(ctx context.Context, to Point) (err error) {
	if _, err := encodeAnchor(to); err != nil {
		return err
	}
	lock, err := lockFile(ctx, f.path()+".lock")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	kept, err := f.read()
	if err != nil {
		return err
	}
	if to, err = kept.Advanced(to); err != nil {
		return err
	}
	if to == kept {
		// Perhaps by a process that was killed before it had synced the new name.
		return syncDir(filepath.Dir(f.path()))
	}
	b, err := encodeAnchor(to)
	if err != nil {
		return err
	}
	return replaceFile(f.path(), b)
}
