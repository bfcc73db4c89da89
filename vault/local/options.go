package local

import (
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/blockseal/blockseal/internal/keyfile"
	"github.com/blockseal/blockseal/vault"
)

// Bounds and defaults of [Options].
const (
	MinRetentionDays     = 7
	MaxRetentionDays     = 90
	DefaultRetentionDays = 90
	DefaultLockWait      = 5 * time.Second
	DefaultNotifyBefore  = 30 * 24 * time.Hour

	// BackupSecretSize is the size of a backup secret in bytes.
	BackupSecretSize = keySize
)

// Options configure a vault. A nil *Options, and each zero field, means the
// default that the field states.
type Options struct {
	// The first fields are properties of the vault, kept in its file. They are for
	// Create; Open takes them from the file and does not look at them here.

	// KDF of the passphrase. Default: see [KDF].
	KDF KDF
	// RetentionDays is how many days a deleted key can be recovered, 7 to 90.
	// Default: 90.
	RetentionDays int
	// PurgeProtection forbids purging a key before its retention is over, for good:
	// it cannot be turned off. Default: off; [Vault.EnablePurgeProtection] turns it
	// on later.
	PurgeProtection bool
	// BackupSecret, 32 bytes, makes the vault one that restores the backups of other
	// vaults with the same secret; see [Vault.BackupSecret]. Default: a random one
	// of its own.
	BackupSecret Secret
	// ID is the vault's own name for itself, "local:" and 32 hexadecimal digits. Give
	// one only to rebuild a vault that is lost, from its backups: what was wrapped
	// names the vault by its id. Default: a random one.
	ID string

	// The remaining fields are this handle's.

	// InsecureKDF permits a passphrase KDF below the floor that [KDF] states, in Create,
	// Open, ChangePassphrase and EscrowBackupSecret. It is for tests, whose passphrases
	// protect nothing, and for opening a vault that was made so, to change its
	// passphrase. Default: such a KDF is refused ([ErrWeakKDF]).
	InsecureKDF bool
	// Clock tells the time by which keys are in date and retention ends. It is for tests. Default:
	// the system's.
	Clock vault.Clock
	// LockWait is how long a change waits for another process that is changing the
	// vault. Default: 5 seconds; negative: not at all.
	LockWait time.Duration
	// Logger receives every event. Default: none.
	Logger *slog.Logger
	// OnEvent receives every event, in the call that it comes up in, which waits for
	// it. It may be called concurrently, and must not call the vault. Default: none.
	OnEvent func(Event)

	generate func() (*rsa.PrivateKey, error) // tests put a pool of keys in its place
	files    files                           // tests watch them
	hook     func(step) error                // see directory
}

// withDefaults returns a copy of o, which may be nil, with the defaults of a
// handle. Those of a vault are Create's.
func (o *Options) withDefaults() Options {
	var c Options
	if o != nil {
		c = *o
	}
	if c.Clock == nil {
		c.Clock = vault.SystemClock()
	}
	if c.LockWait == 0 {
		c.LockWait = DefaultLockWait
	}
	if c.RetentionDays == 0 {
		c.RetentionDays = DefaultRetentionDays
	}
	c.KDF = c.KDF.withDefaults()
	if c.files == nil {
		c.files = system{}
	}
	if c.generate == nil {
		c.generate = func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, keyfile.KeyBits) }
	}
	return c
}

// validate checks what Create needs.
func (o *Options) validate() error {
	if err := o.KDF.admit(o); err != nil {
		return fmt.Errorf("options: %w: %w", err, ErrInvalid)
	}
	if o.RetentionDays < MinRetentionDays || o.RetentionDays > MaxRetentionDays {
		return fmt.Errorf("options: RetentionDays %d, want %d to %d: %w", o.RetentionDays, MinRetentionDays, MaxRetentionDays, ErrInvalid)
	}
	if n := len(o.BackupSecret); n != 0 && n != BackupSecretSize {
		return fmt.Errorf("options: the BackupSecret has %d bytes, want %d: %w", n, BackupSecretSize, ErrInvalid)
	}
	return nil
}

// Secret is bytes that do not print.
type Secret []byte

const redacted = "local.Secret(redacted)"

// String keeps the bytes out of every print; so do the other methods.
func (Secret) String() string { return redacted }

// GoString is String.
func (Secret) GoString() string { return redacted }

// Format is String for every verb.
func (Secret) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// LogValue is String.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText is String, so that no encoder writes the bytes.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// KeyOptions are the properties of a new key version. Nil is all defaults.
type KeyOptions struct {
	// NotBefore and Expires bound when the version wraps. They are kept in whole
	// seconds, the rest is cut off. Default: not set.
	NotBefore, Expires time.Time
	// Disabled makes the version disabled. Default: enabled.
	Disabled bool
	// Operations that the version permits, whoever asks. Default: get, wrapKey and
	// unwrapKey. A version that permits import must permit nothing else.
	Operations []vault.Operation
	// Policy replaces the key's rotation policy. Default: as it is; none for a new key.
	Policy *RotationPolicy
	// NewVersion makes a new current version of a key that exists, to which the stores on
	// the key follow; a name without a key is refused ([vault.ErrKeyNotFound]). Default: a
	// key is made, and a name that is taken is refused ([vault.ErrKeyExists]).
	NewVersion bool
}

// Validate reports whether a key version can have these properties. The error matches
// [ErrInvalid]; without one, they can be refused only together with what the vault has:
// a rotation policy by which the version would expire before it is valid.
func (o *KeyOptions) Validate() error {
	if o == nil {
		return nil
	}
	_, err := o.version()
	if err == nil && o.Policy != nil {
		_, err = o.Policy.encode()
	}
	if err != nil {
		return fmt.Errorf("local: key options: %w: %w", err, ErrInvalid)
	}
	return nil
}

// version returns a version with the properties of o, which may be nil.
func (o *KeyOptions) version() (*version, error) {
	v := &version{Enabled: true, Operations: DataPlane()}
	if o == nil {
		return v, nil
	}
	v.Enabled = !o.Disabled
	if o.Operations != nil {
		v.Operations = slices.Clone(o.Operations)
	}
	var err error
	if v.NotBefore, err = toUnix(o.NotBefore); err != nil {
		return nil, err
	}
	if v.Expires, err = toUnix(o.Expires); err != nil {
		return nil, err
	}
	return v, errors.Join(checkDates(v.NotBefore, v.Expires), checkOperations(v.Operations))
}
