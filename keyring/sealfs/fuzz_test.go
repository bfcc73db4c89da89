package sealfs

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// said reports whether an error is what a decoder says of bytes that it cannot read.
func said(err error) bool {
	return errors.Is(err, keyring.ErrCorrupt) || errors.Is(err, keyring.ErrVersion)
}

// fuzzFS is a file system with a file of the given name and content.
func fuzzFS(f *testing.F, name string, parts ...[]byte) (*FS, *vfs.MemFS, []byte) {
	v := vaulttest.New(nil)
	r, err := keyring.Create(f.Context(), new(keyring.MemStorage), kek.New(v, v.CreateKey("operator").Versionless()), nil)
	require.NoError(f, err)
	f.Cleanup(func() { r.Close() })
	under := vfs.NewMem()
	fs, err := New(under, r, &Options{ChunkSize: minChunk})
	require.NoError(f, err)
	if fs.opts.Layout(name) == Pages {
		p, err := fs.OpenFile(name, &FileOptions{PageSize: minPage})
		require.NoError(f, err)
		at := int64(0)
		for _, part := range parts {
			_, err := p.WriteAt(part, at)
			require.NoError(f, err)
			at += int64(len(part))
		}
		require.NoError(f, p.Sync())
		require.NoError(f, p.Close())
	} else {
		file, err := fs.Create(name, vfs.WriteCategoryUnspecified)
		require.NoError(f, err)
		for _, part := range parts {
			_, err := file.Write(part)
			require.NoError(f, err)
			require.NoError(f, file.Sync())
		}
		require.NoError(f, file.Close())
	}
	b, err := under.Open(name)
	require.NoError(f, err)
	sealed, err := io.ReadAll(b)
	require.NoError(f, err)
	return fs, under, sealed
}

// put replaces what is beneath a name.
func put(t *testing.T, under vfs.FS, name string, b []byte) {
	file, err := under.Create(name, vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	_, err = file.Write(bytes.Clone(b))
	require.NoError(t, err)
	require.NoError(t, file.Close())
}

func readWhole(fs *FS, name string) ([]byte, error) {
	file, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(file)
}

// FuzzHead holds that a head which decodes encodes to itself, but for slots that hold nothing, and
// that what it is bound to is in the first bytes.
func FuzzHead(f *testing.F) {
	for _, name := range []string{"000001.log", "000002.sst", "SHARED-CACHE-1"} {
		_, _, sealed := fuzzFS(f, name, []byte("content"))
		f.Add(sealed[:headSize])
		f.Add(sealed[:headSize-1])
	}
	f.Add(make([]byte, headSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHead(b)
		if err != nil {
			require.True(t, said(err), "%v", err)
			return
		}
		again := h.encode()
		require.Equal(t, b[:fixedSize], again[:fixedSize])
		for i, r := range h.records {
			at := keySlotsAt + i*keySlotSize
			if r != nil {
				require.Equal(t, b[at:at+keySlotSize], again[at:at+keySlotSize])
			}
			require.Equal(t, zero(b[at:at+keySlotSize]), h.blank[i])
		}
		require.Equal(t, b[nameSlotsAt:], again[nameSlotsAt:])
		for _, i := range h.newestFirst() {
			require.NotNil(t, h.records[i])
		}
	})
}

// FuzzFrames holds that whatever stands behind a log's head, what is read is a beginning of what was
// written, then perhaps the mark of a torn end, or an error.
func FuzzFrames(f *testing.F) {
	const name = "000001.log"
	fs, under, sealed := fuzzFS(f, name, []byte("first"), []byte("second, longer"), bytes.Repeat([]byte("third"), 30))
	want, err := readWhole(fs, name)
	require.NoError(f, err)
	body := sealed[headSize:]
	f.Add(body)
	f.Add(body[:len(body)-frameOverhead])
	f.Add(body[:len(body)-frameOverhead-1])
	f.Add(body[frameOverhead+5:])
	f.Add(append(bytes.Clone(body[frameOverhead+5:]), body...))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		put(t, under, name, append(bytes.Clone(sealed[:headSize]), b...))
		got, err := readWhole(fs, name)
		if err != nil {
			require.True(t, said(err), "%v", err)
		} else if !bytes.HasPrefix(b, body) {
			// Not closed: marked, unless there is nothing at all.
			require.True(t, len(got) == 0 || bytes.HasSuffix(got, []byte(tornMark)), "%q", got)
		}
		require.True(t, bytes.HasPrefix(want, bytes.TrimSuffix(got, []byte(tornMark))))
	})
}

// FuzzChunks holds that no bytes behind a head are a file's content but its own.
func FuzzChunks(f *testing.F) {
	const name = "000001.sst"
	fs, under, sealed := fuzzFS(f, name, bytes.Repeat([]byte("0123456789"), 120))
	body := sealed[headSize:]
	f.Add(body)
	f.Add(body[:minChunk])
	f.Add(body[minChunk:])
	f.Add(append(bytes.Clone(body[minChunk:2*minChunk]), body...))
	f.Add(append(bytes.Clone(body), body[:40]...))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		put(t, under, name, append(bytes.Clone(sealed[:headSize]), b...))
		_, err := readWhole(fs, name)
		if bytes.Equal(b, body) {
			require.NoError(t, err)
			return
		}
		require.True(t, said(err), "%v", err)
	})
}

// FuzzPages holds the same of a file of pages, whose pages are read one by one.
func FuzzPages(f *testing.F) {
	const name = "SHARED-CACHE-1"
	content := bytes.Repeat([]byte("0123456789"), 20)
	fs, under, sealed := fuzzFS(f, name, content)
	f.Add(sealed)
	f.Add(sealed[:len(sealed)-1])
	f.Add(append(bytes.Clone(sealed), 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		put(t, under, name, b)
		file, err := fs.OpenFile(name, &FileOptions{ReadOnly: true})
		if err != nil {
			require.True(t, said(err), "%v", err)
			return
		}
		defer file.Close()
		size, err := file.Size()
		require.NoError(t, err)
		require.LessOrEqual(t, size, int64(len(content)))
		page := make([]byte, minPage)
		for at := int64(0); at < size; at += minPage {
			n, err := file.ReadAt(page, at)
			if err != nil && !errors.Is(err, io.EOF) {
				require.True(t, said(err), "%v", err)
				continue
			}
			require.Equal(t, content[at:at+int64(n)], page[:n])
		}
	})
}

// FuzzSizes holds that a size record that decodes encodes to itself and makes sense.
func FuzzSizes(f *testing.F) {
	f.Add(sizes{1, 2, 1}.encode())
	f.Add(make([]byte, sizeContent))
	f.Add(bytes.Repeat([]byte{0xff}, sizeContent))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeSizes(b)
		if err != nil {
			require.True(t, said(err), "%v", err)
			return
		}
		require.Equal(t, b, s.encode())
		require.True(t, 0 <= s.durable && s.durable <= s.size && s.size <= maxSize)
	})
}
