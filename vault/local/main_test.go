//go:build unix

package local_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/blockseal/blockseal/internal/test/seldom"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

// childMode, if set in the environment, makes the test binary one of the other
// processes of process_test.go.
const childMode = "BLOCKSEAL_VAULT_CHILD"

func TestMain(m *testing.M) {
	if mode := os.Getenv(childMode); mode != "" {
		if err := child(mode, os.Getenv("CHILD_DIR"), os.Getenv("CHILD_ARG")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	seldom.Collect()
	os.Exit(m.Run())
}

func child(mode, dir, arg string) error {
	switch mode {
	case "create":
		return childCreate(dir, arg)
	case "open or create":
		return childOpenOrCreate(dir, arg)
	case "memory":
		return childMemory(dir)
	case "fips":
		return childFIPS(dir)
	}
	v, err := local.Open(dir, passphrase, &local.Options{InsecureKDF: true, LockWait: time.Minute}) // as the rig's
	if err != nil {
		return err
	}
	switch mode {
	case "kill", "passphrase": // itself, at a step of a change
		local.SetHook(v, func(step string) error {
			if step == arg {
				return syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
			return nil
		})
		if mode == "passphrase" {
			return v.ChangePassphrase(context.Background(), []byte("another"), cheap)
		}
		return childUpdate(v, 2)
	case "grant": // many times, under names of its own
		n, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		for i := range n {
			if err := v.Grant(context.Background(), fmt.Sprintf("%d-%d", os.Getpid(), i), vault.OpGet); err != nil {
				return err
			}
		}
	case "revoke": // everything that an identity has, or "NAME OPERATION"
		name, op, alone := strings.Cut(arg, " ")
		var ops []local.Permission
		if alone {
			ops = append(ops, local.Permission(op))
		}
		if err := v.Revoke(context.Background(), name, ops...); err != nil {
			return err
		}
	case "update": // until it is killed
		for i := int64(1); ; i++ {
			if err := childUpdate(v, i); err != nil {
				return err
			}
		}
	}
	return v.Close()
}

// childUpdate makes one change of two properties that a reader finds together or not
// at all: the version expires as many hours after 2100 as it is valid after 2000.
func childUpdate(v *local.Vault, n int64) error {
	from := time.Unix(946684800, 0).Add(time.Duration(n) * time.Hour)
	until := time.Unix(4102444800, 0).Add(time.Duration(n) * time.Hour)
	_, err := v.UpdateKey(context.Background(), vault.KeyID{Name: "kek"}, local.Update{NotBefore: &from, Expires: &until})
	return err
}

// childCreate kills the process at a step of Create.
func childCreate(dir, arg string) error {
	o := local.WithHook(local.Options{InsecureKDF: true, KDF: cheap}, func(step string) error {
		if step == arg {
			return syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		return nil
	})
	v, err := local.Create(dir, passphrase, o)
	if err != nil {
		return err
	}
	return v.Close()
}

// childOpenOrCreate opens or makes a vault and a key in it, and prints the key's id. When it
// first comes to a step it says so, and waits for a line from its parent.
func childOpenOrCreate(dir, arg string) error {
	stood := false
	o := local.WithHook(local.Options{InsecureKDF: true, KDF: cheap, LockWait: time.Minute}, func(step string) error {
		if step != arg || stood {
			return nil
		}
		stood = true
		fmt.Println("at the step")
		_, err := bufio.NewReader(os.Stdin).ReadString('\n')
		return err
	})
	v, err := local.OpenOrCreate(dir, passphrase, o)
	if err != nil {
		return err
	}
	key, err := v.EnsureKey(context.Background(), "kek", nil)
	if err != nil {
		return err
	}
	fmt.Println(key.ID)
	return v.Close()
}

// childFIPS says with which KDF a vault is made by default, and whether one that was made
// with argon2id opens.
func childFIPS(dir string) error {
	v, err := local.Create(filepath.Join(dir, "new"), passphrase, nil)
	if err != nil {
		return err
	}
	defer v.Close()
	info, err := v.Info(context.Background())
	if err != nil {
		return err
	}
	fmt.Println("made with", info.KDF.Algorithm)
	old, err := local.Open(dir, passphrase, insecure)
	if err != nil {
		fmt.Println(err)
		return nil
	}
	fmt.Println("opens")
	return old.Close()
}

// childMemory works with a vault, closes it, and waits at both points for a line from
// its parent, which looks into its memory.
func childMemory(dir string) error {
	v, err := local.Open(dir, passphrase, insecure)
	if err != nil {
		return err
	}
	ctx := context.Background()
	for i := range 10 {
		if err := v.Grant(ctx, "i"+strconv.Itoa(i), vault.OpGet); err != nil {
			return err
		}
		w, err := v.WrapKey(ctx, vault.KeyID{Name: "kek"}, []byte("a secret"))
		if err != nil {
			return err
		}
		if _, err := v.UnwrapKey(ctx, w); err != nil {
			return err
		}
		if _, err := v.BackupKey(ctx, "kek"); err != nil {
			return err
		}
	}
	in := bufio.NewReader(os.Stdin)
	fmt.Println("open")
	if _, err := in.ReadString('\n'); err != nil {
		return err
	}
	if err := v.Close(); err != nil {
		return err
	}
	for range 3 {
		runtime.GC()
	}
	fmt.Println("closed")
	_, err = in.ReadString('\n')
	return err
}
