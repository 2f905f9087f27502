import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { parseConfig, refusedOptions, strangeLines } from './config.ts'
import { explainRefused } from './kconfig.ts'

test('of an option that comes twice the later line counts', () => {
  const options = parseConfig('CONFIG_A=y\n# CONFIG_B is not set\n# words\n# CONFIG_A is not set\nCONFIG_B="x y"\n')
  assert.deepEqual(
    [...options],
    [
      ['A', 'n'],
      ['B', '"x y"'],
    ],
  )
})

test('what is no option in a fragment is found', () => {
  const good = '# words\nCONFIG_A=y\nCONFIG_B=0x10\nCONFIG_C=-1\nCONFIG_D="x \\" y"\n# CONFIG_E is not set\n\n'
  assert.deepEqual(strangeLines(good), [])
  const wrong = ['CONFIG_A = y', 'A=y', 'CONFIG_A=yes', 'CONFIG_A', 'CONFIG_D="x']
  assert.deepEqual(strangeLines(wrong.join('\n')), wrong)
})

test('every option that is not as it was asked for is found, whether absent, other or set', () => {
  const requested = parseConfig('CONFIG_A=y\nCONFIG_B=y\nCONFIG_C=100\n# CONFIG_D is not set\n# CONFIG_E is not set\n')
  const resulting = parseConfig('CONFIG_A=y\nCONFIG_C=250\nCONFIG_D=y\n')
  assert.deepEqual(refusedOptions(requested, resulting), [
    { option: 'B', wanted: 'y', got: 'n' },
    { option: 'C', wanted: '100', got: '250' },
    { option: 'D', wanted: 'n', got: 'y' },
  ])
})

/** What an option that does not stick is said to lack, in a tree of Kconfig files. */
async function reasons(files: Record<string, string>, options: readonly string[], config: string): Promise<string[]> {
  const dir = mkdtempSync(join(tmpdir(), 'kconfig-'))
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(join(dir, path, '..'), { recursive: true })
    writeFileSync(join(dir, path), text)
  }
  const refused = options.map((option) => ({ option, wanted: 'y', got: 'n' }))
  try {
    return await explainRefused(dir, 'x86', refused, parseConfig(config))
  } finally {
    rmSync(dir, { recursive: true })
  }
}

test('the reason is what the option, or a menu or condition around it, depends on', async () => {
  const files = {
    Kconfig: 'source "fs/Kconfig"\nsource "arch/$(SRCARCH)/Kconfig"\n',
    'fs/Kconfig': `
if BLOCK
menuconfig MISC_FILESYSTEMS
	bool "Miscellaneous filesystems"
if MISC_FILESYSTEMS
source "fs/squashfs/Kconfig"
endif
endif
config PROC_FS
	bool "/proc"
`,
    'fs/squashfs/Kconfig': `
config SQUASHFS
	tristate "SquashFS"
	depends on BLOCK
	select CRC32
	help
	  Saves space
	  if it is there.

	  menu, config NOTHING and so on: words.
config SQUASHFS_XATTR
	bool "Xattrs"
	depends on SQUASHFS && (A || !B)
`,
    'arch/x86/Kconfig': `
menu "Power"
	depends on !UML
config SUSPEND
	bool "Suspend"
endmenu
config OBJTOOL
	bool
config PLAIN
	bool "Plain"
`,
  }
  const options = ['SQUASHFS', 'SQUASHFS_XATTR', 'SUSPEND', 'OBJTOOL', 'ABSENT', 'PROC_FS']
  assert.deepEqual(await reasons(files, options, 'CONFIG_BLOCK=y\nCONFIG_B=y\nCONFIG_UML=y\n'), [
    'CONFIG_SQUASHFS is not set rather than y: it needs MISC_FILESYSTEMS',
    'CONFIG_SQUASHFS_XATTR is not set rather than y: it needs MISC_FILESYSTEMS and SQUASHFS and (A || !B)',
    'CONFIG_SUSPEND is not set rather than y: it needs !UML',
    'CONFIG_OBJTOOL is not set rather than y: it cannot be chosen: other options decide it',
    'CONFIG_ABSENT is not set rather than y: this kernel has no such option',
    'CONFIG_PROC_FS is not set rather than y',
  ])
})

test('of several definitions the one counts that is nearest to hold', async () => {
  const Kconfig = 'config A\n\tbool "A"\n\tdepends on B && C\nconfig A\n\tbool "A"\n\tdepends on D\n'
  assert.deepEqual(await reasons({ Kconfig }, ['A'], ''), ['CONFIG_A is not set rather than y: it needs D'])
})
