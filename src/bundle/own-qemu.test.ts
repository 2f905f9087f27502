import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { LocalMachine } from '../machine/local.ts'
import type { Bundle } from './bundle.ts'
import { guestIn } from './guest/guest.ts'
import { withQemu } from './own-qemu.ts'

const dir = mkdtempSync(join(tmpdir(), 'qemu-'))
after(() => rmSync(dir, { recursive: true }))

const bundle: Bundle = {
  digest: 'd',
  arch: 'x86_64',
  dirs: [],
  tools: { dir: '/tools', argv: (program) => [program], qemuArgv: () => ['bundled'] },
  guest: guestIn('/guest', 'x86_64', { kernelRelease: '6.1' }),
}

function program(name: string, says: string): string {
  const path = join(dir, name)
  writeFileSync(path, `#!/bin/sh\necho '${says}'\n`, { mode: 0o755 })
  return path
}

test('another QEMU takes the place of the bundled one', async () => {
  const path = program('new', 'QEMU emulator version 11.0.2 (Debian)')
  const { tools, guest } = await withQemu(bundle, new LocalMachine(), path)
  assert.deepEqual(tools.qemuArgv(), [path])
  assert.equal(guest, bundle.guest)
})

test('what is no QEMU, is too old, or is not there is refused with the reason', async () => {
  const cases: [string, RegExp][] = [
    [program('other', 'Bochs 2.7'), /it is not QEMU/],
    [program('old', 'QEMU emulator version 10.1.9'), /its version is 10\.1/],
    [join(dir, 'absent'), /not found/],
  ]
  for (const [path, message] of cases) {
    await assert.rejects(withQemu(bundle, new LocalMachine(), path), { code: 'BAD_QEMU', message })
  }
})
