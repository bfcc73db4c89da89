package adversary

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/test/unclose"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

const registerKey = "\x01\x00\x00\x00\x00register"

// at is the rig of another directory, with the same vault.
func (g *rig) at(dir string) *rig {
	c := *g
	c.dir = dir
	return &c
}

// copyFiles copies a directory's files, in the place of what is there.
func (g *rig) copyFiles(from, to string) {
	g.t.Helper()
	require.NoError(g.t, g.opts.Pebble.FS.RemoveAll(to))
	_, err := vfs.Clone(g.opts.Pebble.FS, g.opts.Pebble.FS, from, to, vfs.CloneSync)
	require.NoError(g.t, err)
}

// editIdentity changes the text of an identity file, as anybody can who writes the disk.
func (g *rig) editIdentity(edit func(text string) string) {
	g.t.Helper()
	g.rewriteIdentity(edit)
	require.NoError(g.t, unclose.Store(g.opts.Pebble.FS, g.dir))
}

// rewriteIdentity is editIdentity of a directory that stays closed; the sum at the end is made right.
func (g *rig) rewriteIdentity(edit func(text string) string) {
	g.t.Helper()
	path := g.opts.Pebble.FS.PathJoin(g.dir, "BLOCKSEAL")
	f, err := g.opts.Pebble.FS.Open(path)
	require.NoError(g.t, err)
	text, err := io.ReadAll(f)
	require.NoError(g.t, err)
	require.NoError(g.t, f.Close())
	w, err := g.opts.Pebble.FS.Create(path, vfs.WriteCategoryUnspecified)
	require.NoError(g.t, err)
	body, _, _ := strings.Cut(edit(string(text)), "sha256 ")
	_, err = fmt.Fprintf(w, "%ssha256 %x\n", body, sha256.Sum256([]byte(body)))
	require.NoError(g.t, err)
	require.NoError(g.t, w.Close())
}

// directory returns the instance of a directory.
func (g *rig) directory() string {
	g.t.Helper()
	text := files(g.t, g.opts.Pebble.FS, g.dir)[g.opts.Pebble.FS.PathJoin(g.dir, "BLOCKSEAL")]
	_, after, ok := strings.Cut(text, "\ninstance ")
	require.True(g.t, ok)
	instance, _, _ := strings.Cut(after, "\n")
	return instance
}

// pretend gives a directory the instance of another one, and its store the record that says that it
// is no copy which waits.
func (g *rig) pretend(directory string) {
	g.editIdentity(func(text string) string {
		var out strings.Builder
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "instance ") {
				line = "instance " + directory + "\n"
			}
			out.WriteString(line)
		}
		return out.String()
	})
	g.settle()
}

// settle takes the mark of a copy away from the store in partition 0: its record says that it is
// what it is.
func (g *rig) settle() {
	own, err := hex.DecodeString(storeInstance(g.directory(), 0))
	require.NoError(g.t, err)
	g.set(map[string]string{instanceKey: "\x01" + string(own)})
}

func (g *rig) documentKEK() vault.KeyID {
	g.t.Helper()
	in, err := block.InspectKeyring(g.dir, &g.opts)
	require.NoError(g.t, err)
	return in.KEK
}

func (g *rig) generation() uint64 {
	g.t.Helper()
	in, err := block.InspectKeyring(g.dir, &g.opts)
	require.NoError(g.t, err)
	return in.Generation
}

// sameGeneration revalidates the store's copy, and changes the two until their keyring
// documents have the same generation.
func (g *rig) sameGeneration() *rig {
	g.t.Helper()
	c := g.at("copy")
	for first := true; first || g.generation() != c.generation(); first = false {
		r := c
		if !first && g.generation() < c.generation() {
			r = g
		}
		s, err := block.Open(r.ctx, r.dir, r.kek, &r.opts)
		require.NoError(g.t, err)
		require.NoError(g.t, s.Revalidate(r.ctx))
		require.NoError(g.t, s.RotateKEK(r.ctx))
		require.NoError(g.t, s.Close())
	}
	return c
}

// newKEK makes another key in the rig's vault.
func (g *rig) newKEK(name string) *kek.KEK {
	return kek.New(g.vault, g.vault.CreateKey(name).Versionless())
}

// copyValue is a copy as docs/format.md has it, section 5.
func copyValue(t *testing.T, instance string, vouched byte, document []byte, key vault.KeyID, path string) string {
	id, err := hex.DecodeString(instance)
	require.NoError(t, err)
	b := append(id, vouched)
	b = append(b, make([]byte, 16)...) // made, generation
	b = append(b, document...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(key.String())))
	b = append(append(b, key.String()...), 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(path)))
	return string(b) + path
}

// A backup that nobody made but the disk writer does not follow the store to its new KEK,
// however it is put on the list of copies: it is said to be there, once, and counts as a use
// of its KEK; and the purge of that closes it.
func TestPlantedCopyIsNotMoved(t *testing.T) {
	const directory = "aabbccddeeff00112233445566778899"
	planted := storeInstance(directory, 0)
	for name, plant := range map[string]func(t *testing.T, g *rig, instance string, value string){
		"announced": func(_ *testing.T, g *rig, instance, value string) {
			g.set(map[string]string{"\x01\x00\x00\x00\x00copy/" + instance + "/" + planted: value})
		},
		"in the register, with the tag that was there": func(t *testing.T, g *rig, _, value string) {
			r := g.records()[registerKey]
			require.True(t, strings.HasSuffix(r, "\x00\x00"), "there are no copies")
			g.set(map[string]string{registerKey: r[:len(r)-2] + "\x00\x01" + value})
		},
		"in the register, with a tag of zeros": func(_ *testing.T, g *rig, _, value string) {
			r := g.records()[registerKey]
			g.set(map[string]string{registerKey: "\x02" + string(make([]byte, 32)) + r[33:len(r)-2] + "\x00\x01" + value})
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			g.fill(many()...)
			g.copyFiles(g.dir, "stolen")
			s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
			require.NoError(t, err)
			require.NoError(t, s.Delete(g.ctx, []byte("a")))
			_, err = s.Erase(g.ctx, nil)
			require.NoError(t, err)
			instance := s.Instance()
			require.NoError(t, s.Close())
			g.at("stolen").pretend(directory)
			plant(t, g, instance, copyValue(t, planted, 1, make([]byte, 32), g.key, "stolen"))

			heard := g.listen()
			s, err = block.Open(g.ctx, g.dir, g.kek, &g.opts)
			require.NoError(t, err)
			copies, err := s.Copies(g.ctx)
			require.NoError(t, err)
			require.Len(t, copies, 1)
			require.Equal(t, "stolen", copies[0].Path)
			require.Contains(t, copies[0].Doubt, "nothing shows that this store made it")
			next := g.newKEK("customer-2")
			require.NoError(t, s.ChangeKEK(g.ctx, next))
			uses, err := s.KeyUsage(g.ctx)
			if name == "announced" {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, block.ErrIncomplete)
			}
			i := slices.IndexFunc(uses, func(u block.KeyUse) bool { return u.Key == g.key })
			require.GreaterOrEqual(t, i, 0)
			require.Len(t, uses[i].Copies, 1, "nobody who looks takes the old KEK for unneeded")
			require.NoError(t, s.ForgetCopy(g.ctx, planted))
			require.NoError(t, s.Close())
			require.Equal(t, g.key, g.at("stolen").documentKEK(), "it was not touched")
			heard.await(t, 1)
			require.Empty(t, heard.of(keyring.CopyDue))
			require.Empty(t, heard.of(keyring.CopyKEKChanged))
			news := heard.of(keyring.CopyKEKNotChanged)
			require.NotEmpty(t, news)
			require.Equal(t, "stolen", news[0].Detail)
			require.ErrorIs(t, news[0].Err, block.ErrIncomplete)

			g.vault.Purge(g.key.Name)
			_, err = block.Open(g.ctx, "stolen", next, &g.opts)
			require.ErrorIs(t, err, keyring.ErrWrongKEK)
			g.kek = kek.New(g.vault, g.key)
			g.at("stolen").gone(vault.ErrKeyNotFound)
		})
	}
}

// What was put in a copy's place is not moved, whatever its identity file says: neither
// another state of the same store, from before the copy was made or after, nor another
// store, nor the store's own files. The copy itself is, also when it was moved before.
func TestAnotherAtACopysPlaceIsNotMoved(t *testing.T) {
	for name, c := range map[string]struct {
		put  func(g *rig, directory string) // of the copy, what its identity file says
		want error                          // nil: it is moved
		text string
	}{
		"the copy itself":                      {func(*rig, string) {}, nil, ""},
		"another copy of the store, as itself": {func(g *rig, _ string) { g.copyFiles("sibling", "copy") }, nil, "is not at copy any more"},
		"another store, as itself": {func(g *rig, _ string) {
			require.NoError(g.t, g.opts.Pebble.FS.RemoveAll("copy"))
			g.at("copy").fill("a")
		}, nil, "is not at copy any more"},
		"the store's own files": {func(g *rig, _ string) {
			g.copyFiles("after", "copy")
		}, nil, "is not at copy any more"},
		"a backup from before the copy": {func(g *rig, directory string) {
			g.copyFiles("before", "copy")
			g.at("copy").pretend(directory)
		}, keyring.ErrUnexpected, "it is not moved"},
		"a backup from after the copy": {func(g *rig, directory string) {
			g.copyFiles("after", "copy")
			g.at("copy").pretend(directory)
		}, keyring.ErrUnexpected, "it is not moved"},
		"another copy of the store": {func(g *rig, directory string) {
			g.copyFiles("sibling", "copy")
			g.at("copy").pretend(directory)
		}, keyring.ErrUnexpected, "it is not moved"},
		"the copy before it was moved": {func(g *rig, _ string) {
			g.copyFiles("as it was made", "copy")
			g.at("copy").editIdentity(func(text string) string { return text })
		}, keyring.ErrUnexpected, "it is not moved"},
		"the copy between two moves": {func(g *rig, _ string) {
			g.copyFiles("once moved", "copy")
			g.at("copy").editIdentity(func(text string) string { return text })
		}, keyring.ErrUnexpected, "it is not moved"},
		"another store on the same KEK": {func(g *rig, directory string) {
			o := g.at("copy")
			require.NoError(g.t, g.opts.Pebble.FS.RemoveAll("copy"))
			o.fill("a")
			o.pretend(directory)
		}, block.ErrForeign, "it is not moved"},
	} {
		for _, moved := range []bool{false, true} {
			if moved && strings.HasPrefix(name, "another copy of the store") || !moved && strings.HasPrefix(name, "the copy ") && c.want != nil {
				continue // which are on another KEK then; which there is not then
			}
			t.Run(name+map[bool]string{true: ", which was moved before"}[moved], func(t *testing.T) {
				g := newRig(t)
				g.fill(many()...)
				g.copyFiles(g.dir, "before")
				s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
				require.NoError(t, err)
				require.NoError(t, s.Checkpoint(g.ctx, "sibling"))
				copies, err := s.Copies(g.ctx)
				require.NoError(t, err)
				require.NoError(t, s.ForgetCopy(g.ctx, copies[0].Instance))
				require.NoError(t, s.Checkpoint(g.ctx, "copy"))
				copies, err = s.Copies(g.ctx)
				require.NoError(t, err)
				require.Len(t, copies, 1)
				for range 9 { // its generation is greater than the copy's will ever be
					require.NoError(t, s.RotateEpoch(g.ctx, nil))
				}
				if moved {
					g.copyFiles("copy", "as it was made")
					require.NoError(t, s.ChangeKEK(g.ctx, g.newKEK("once")))
					g.copyFiles("copy", "once moved")
					g.kek = g.newKEK("between")
					require.NoError(t, s.ChangeKEK(g.ctx, g.kek))
					require.Equal(t, "between", g.at("copy").documentKEK().Name)
				}
				copies, err = s.Copies(g.ctx)
				require.NoError(t, err)
				require.NoError(t, s.Close())
				g.copyFiles(g.dir, "after")
				directory := g.at("copy").directory()
				require.Equal(t, storeInstance(directory, 0), copies[0].Instance)
				c.put(g, directory)

				was := g.at("copy").documentKEK()
				heard := g.listen()
				o := g.opts
				o.Keyring.OtherKEKs = []*kek.KEK{kek.New(g.vault, g.key.Versionless())} // with which each opens
				if moved {
					o.Keyring.OtherKEKs = append(o.Keyring.OtherKEKs, kek.New(g.vault, vault.KeyID{Vault: g.key.Vault, Name: "once"}))
				}
				s, err = block.Open(g.ctx, g.dir, g.kek, &o)
				require.NoError(t, err)
				require.NoError(t, s.ChangeKEK(g.ctx, g.newKEK("next")))
				now, err := s.Copies(g.ctx)
				require.NoError(t, err)
				require.NoError(t, s.Close())
				heard.await(t, 1)
				due := heard.of(keyring.CopyDue)
				require.NotEmpty(t, due)
				require.Equal(t, "copy", due[0].Detail)
				if c.text == "" {
					require.Equal(t, "next", g.at("copy").documentKEK().Name)
					require.Equal(t, "next", now[0].KEK.Name)
					require.Empty(t, heard.of(keyring.CopyKEKNotChanged))
					return
				}
				require.Equal(t, was, g.at("copy").documentKEK(), "it was not touched")
				require.Contains(t, now[0].KEKs, copies[0].KEKs[0], "what the copy needs, wherever it is")
				news := heard.of(keyring.CopyKEKNotChanged)
				require.NotEmpty(t, news)
				require.Equal(t, "copy", news[0].Detail)
				require.ErrorContains(t, news[0].Err, c.text)
				if c.want != nil {
					require.ErrorIs(t, news[0].Err, c.want)
				}
			})
		}
	}
}

// A register that is not the store's own, or is one of before, or is not there, is not
// believed: every answer says that it is not whole, the receipt does, and an event. What it
// names is not taken for less than it is, and stays in doubt.
func TestRegisterThatIsNotTheStores(t *testing.T) {
	for name, c := range map[string]struct {
		put     func(g *rig, now, older, sibling map[string]string)
		inClear bool // what is in clear shows it
	}{
		"taken away":           {func(g *rig, _, _, _ map[string]string) { g.remove(registerKey) }, true},
		"from before the copy": {func(g *rig, _, older, _ map[string]string) { g.set(map[string]string{registerKey: older[registerKey]}) }, true},
		"of a copy of the store": {func(g *rig, _, _, copied map[string]string) {
			g.set(map[string]string{registerKey: copied[registerKey]})
		}, true},
		"cut off": {func(g *rig, now, _, _ map[string]string) {
			g.set(map[string]string{registerKey: now[registerKey][:80]})
		}, true},
		"of a copy of the store, of the same generation": {func(g *rig, _, _, _ map[string]string) {
			c := g.sameGeneration()
			g.set(map[string]string{registerKey: c.records()[registerKey]})
		}, true},
		"its own, beside the document of a copy, of the same generation": {func(g *rig, _, _, _ map[string]string) {
			c := g.sameGeneration()
			g.set(map[string]string{documentKey: c.records()[documentKey]})
		}, false},
		"with the present number": {func(g *rig, now, older, _ map[string]string) {
			r := []byte(older[registerKey])
			copy(r[1+32+1+16:], now[documentKey][30:38])
			g.set(map[string]string{registerKey: string(r)})
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			g.fill("a", "b")
			older := g.records()
			s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
			require.NoError(t, err)
			g.kek = g.newKEK("second")
			require.NoError(t, s.ChangeKEK(g.ctx, g.kek))
			require.NoError(t, s.Checkpoint(g.ctx, "copy"))
			require.NoError(t, s.Close())
			c.put(g, g.records(), older, g.at("copy").records())

			in, err := block.Inspect(g.ctx, g.dir, &g.opts)
			require.NoError(t, err)
			require.Equal(t, c.inClear, in.Incomplete)
			heard := g.listen()
			for range 2 { // nor does it become right by being saved
				s, err = block.Open(g.ctx, g.dir, g.kek, &g.opts)
				require.NoError(t, err)
				uses, err := s.KeyUsage(g.ctx)
				require.ErrorIs(t, err, block.ErrIncomplete)
				require.NotEmpty(t, uses, "what it knows it says")
				r, err := s.Erase(g.ctx, nil)
				require.NoError(t, err)
				require.True(t, r.Incomplete)
				require.Equal(t, "second", r.Keys[len(r.Keys)-1].Key.Name)
				kept, found, err := s.LastReceipt(g.ctx)
				require.NoError(t, err)
				require.True(t, found)
				require.Equal(t, r, kept)
				copies, err := s.Copies(g.ctx)
				require.NoError(t, err)
				for _, copied := range copies {
					require.NotEmpty(t, copied.Doubt)
				}
				require.NoError(t, s.RotateKEK(g.ctx))
				require.NoError(t, s.Close())
			}
			in, err = block.Inspect(g.ctx, g.dir, &g.opts)
			require.NoError(t, err)
			require.True(t, in.Incomplete)
			heard.await(t, 2)
			news := slices.DeleteFunc(heard.of(keyring.Progressed), func(e keyring.Event) bool { return e.Err == nil })
			require.Len(t, news, 1, "once")
			require.ErrorIs(t, news[0].Err, block.ErrIncomplete)
			require.ErrorContains(t, news[0].Err, g.dir)
		})
	}
}

// A copy that was forgotten is not brought back by the record that the store itself made.
func TestForgottenCopyIsNotBroughtBack(t *testing.T) {
	g := newRig(t)
	g.fill(many()...)
	s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
	require.NoError(t, err)
	require.NoError(t, s.Checkpoint(g.ctx, "copy"))
	require.NoError(t, s.Close())
	genuine := g.records()[registerKey]
	s, err = block.Open(g.ctx, g.dir, g.kek, &g.opts)
	require.NoError(t, err)
	copies, err := s.Copies(g.ctx)
	require.NoError(t, err)
	require.Len(t, copies, 1)
	require.NoError(t, s.ForgetCopy(g.ctx, copies[0].Instance))
	require.NoError(t, s.Close())
	require.NotEqual(t, genuine, g.records()[registerKey])

	g.set(map[string]string{registerKey: genuine})
	s, err = block.Open(g.ctx, g.dir, g.kek, &g.opts)
	require.NoError(t, err)
	copies, err = s.Copies(g.ctx)
	require.NoError(t, err)
	require.NotEmpty(t, copies[0].Doubt)
	require.NoError(t, s.ChangeKEK(g.ctx, g.newKEK("next")))
	require.NoError(t, s.Close())
	require.Equal(t, g.key, g.at("copy").documentKEK())
}
