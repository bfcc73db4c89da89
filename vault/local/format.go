package local

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// The vault file, version 2, is the file named "vault" in the vault's directory.
// Integers are big-endian. These bytes are on disk and must not change;
// docs/format.md is normative.
//
//	offset  size  field
//	     0     8  magic "BSLVAULT"
//	     8     2  format version, 2
//	    10    16  vault id
//	    26     1  passphrase KDF: 1 argon2id (version 0x13), 2 PBKDF2-HMAC-SHA256
//	    27     4  passes of argon2id, or iterations of PBKDF2
//	    31     4  memory of argon2id in KiB; 0 for PBKDF2
//	    35     1  lanes of argon2id; 0 for PBKDF2
//	    36    32  salt
//	    68    60  the master key, 32 bytes, sealed under the KDF's key; AAD: bytes 0 to 67
//	   128     8  generation, 1 more at each change
//	   136     4  B, the size of the sealed body in bytes
//	   140    32  SHA-256 of bytes 0 to 139
//	   172     B  the body, sealed under the master key; AAD: bytes 0 to 171
//
// "Sealed" is AES-256-GCM: nonce 12 | ciphertext | tag 16. The KDF's key has 32
// bytes. The body is JSON; state.go says what is in it.
//
// The body's tag authenticates the whole file, header included. The SHA-256 is
// no protection against an attacker; it tells a damaged header from a wrong
// passphrase before the KDF is run, with parameters that may be damaged too.
const (
	vaultMagic   = "BSLVAULT"
	vaultVersion = 2

	idSize     = 16
	kdfOffset  = 10 + idSize
	saltOffset = kdfOffset + 10
	wrapOffset = saltOffset + saltSize            // 68
	genOffset  = wrapOffset + keySize + overhead  // 128
	sizeOffset = genOffset + 8                    // 136
	sumOffset  = sizeOffset + 4                   // 140
	headerSize = sumOffset + sha256.Size          // 172
	maxVault   = 64 << 20                         // bytes: about 25,000 key versions
	maxBody    = maxVault - headerSize - overhead // of plaintext
)

// header is what a vault file says before its body. Nothing of it is to be
// believed until the body has opened.
type header struct {
	id         [idSize]byte
	kdf        KDF
	salt       [saltSize]byte
	master     [keySize + overhead]byte // sealed
	generation uint64
	bodySize   uint32
}

// passphrasePart returns the bytes that the master key is sealed with as AAD.
func (h *header) passphrasePart() []byte {
	b := append([]byte(nil), vaultMagic...)
	b = binary.BigEndian.AppendUint16(b, vaultVersion)
	b = append(b, h.id[:]...)
	b = append(b, byte(h.kdf.Algorithm))
	b = binary.BigEndian.AppendUint32(b, h.kdf.Passes)
	b = binary.BigEndian.AppendUint32(b, h.kdf.Memory)
	b = append(b, h.kdf.Lanes)
	return append(b, h.salt[:]...)
}

func (h *header) encode() []byte {
	b := append(h.passphrasePart(), h.master[:]...)
	b = binary.BigEndian.AppendUint64(b, h.generation)
	b = binary.BigEndian.AppendUint32(b, h.bodySize)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// corrupt makes an error that matches [ErrCorrupt].
func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %w", fmt.Errorf(format, args...), ErrCorrupt)
}

// decodeHeader parses the start of a vault file and checks its size and sum.
func decodeHeader(file []byte) (h header, err error) {
	n := min(len(file), len(vaultMagic))
	if string(file[:n]) != vaultMagic[:n] {
		return h, corrupt("it does not start as a vault file does")
	}
	if len(file) < 10 {
		return h, corrupt("it ends after %d bytes, within its header", len(file))
	}
	if v := binary.BigEndian.Uint16(file[8:]); v != vaultVersion {
		return h, fmt.Errorf("it has format version %d, this release reads %d: %w", v, vaultVersion, ErrVersion)
	}
	if len(file) < headerSize {
		return h, corrupt("it ends after %d bytes, within its header", len(file))
	}
	if [sha256.Size]byte(file[sumOffset:headerSize]) != sha256.Sum256(file[:sumOffset]) {
		return h, corrupt("the checksum of its header is wrong")
	}
	copy(h.id[:], file[10:])
	h.kdf = KDF{
		Algorithm: KDFAlgorithm(file[kdfOffset]),
		Passes:    binary.BigEndian.Uint32(file[kdfOffset+1:]),
		Memory:    binary.BigEndian.Uint32(file[kdfOffset+5:]),
		Lanes:     file[kdfOffset+9],
	}
	copy(h.salt[:], file[saltOffset:])
	copy(h.master[:], file[wrapOffset:])
	h.generation = binary.BigEndian.Uint64(file[genOffset:])
	h.bodySize = binary.BigEndian.Uint32(file[sizeOffset:])
	if err := h.kdf.validate(); err != nil {
		return h, corrupt("its passphrase KDF: %w", err)
	}
	if want := headerSize + int64(h.bodySize); int64(len(file)) != want {
		return h, corrupt("it has %d bytes, its header says %d", len(file), want)
	}
	return h, nil
}

// encodeVault returns the vault file of a state. It sets the header's body size.
func encodeVault(h *header, master []byte, st *state) ([]byte, error) {
	body, err := st.encode()
	if err != nil {
		return nil, err
	}
	if len(body) > maxBody {
		return nil, fmt.Errorf("the vault would have %d bytes, the most is %d; purge keys: %w", len(body), maxBody, ErrInvalid)
	}
	h.bodySize = uint32(len(body) + overhead)
	head := h.encode()
	return append(head, seal(master, body, head)...), nil
}

// decodeBody opens and parses the body of a file whose header is h.
func decodeBody(h *header, master, file []byte) (*state, error) {
	body, err := open(master, file[headerSize:], file[:headerSize])
	if err != nil {
		return nil, corrupt("its body: %w", err)
	}
	st, err := decodeState(body)
	if err != nil {
		return nil, corrupt("its body: %w", err)
	}
	return st, nil
}

// openMaster returns the master key of a vault file.
func (h *header) openMaster(passphrase []byte) (*masterKey, error) {
	key, err := h.kdf.derive(passphrase, h.salt[:])
	if err != nil {
		return nil, err
	}
	defer clear(key)
	master, err := open(key, h.master[:], h.passphrasePart())
	if err != nil {
		return nil, ErrWrongPassphrase
	}
	defer clear(master)
	m := new(masterKey)
	copy(m[:], master)
	return m, nil
}

// sealMaster seals the master key under a passphrase, with h's KDF and salt.
func (h *header) sealMaster(passphrase, master []byte) error {
	key, err := h.kdf.derive(passphrase, h.salt[:])
	if err != nil {
		return err
	}
	defer clear(key)
	copy(h.master[:], seal(key, master, h.passphrasePart()))
	return nil
}
