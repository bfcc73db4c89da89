package sealfs

// keptPage is the content of a page in which a write ended: what is appended to a file goes on there, and
// needs not read and open it again. It is as on disk, belongs to the key without which nobody reads it, and is
// forgotten with that. A copy of a file has the same key and is another file.
type keptPage struct {
	of      *pageFile // or nil: none is kept
	number  int64
	content []byte
}

func (k *keptPage) drop() {
	k.of = nil
	clear(k.content)
}

// replaced says that count pages of a file from first on have another content from now on, of which the last
// is kept if keep.
func (k *keptPage) replaced(p *pageFile, content []byte, first, count int64, keep bool) {
	switch last := first + count - 1; {
	case keep:
		k.of, k.number, k.content = p, last, append(k.content[:0], content[(count-1)*p.page:]...)
	case k.of == p && k.number >= first && k.number <= last:
		k.drop()
	}
}

// dropKept forgets the page that was kept of the file.
func (p *pageFile) dropKept() {
	p.key.mu.Lock()
	defer p.key.mu.Unlock()
	if p.key.kept.of == p {
		p.key.kept.drop()
	}
}

// fromKept copies a page that is kept, and says whether it is. That takes access.
func (f *File) fromKept(page []byte, i int64) (there bool, err error) {
	k := f.shared.key
	err = k.useAlone(func() error {
		if there = k.kept.of == f.shared && k.kept.number == i; there {
			copy(page, k.kept.content)
		}
		return nil
	})
	return there, ofFile(f.name, err)
}
