import assert from 'node:assert/strict'
import { release } from 'node:os'
import { test } from 'node:test'
import { LocalMachine } from '../../machine/local.ts'
import { lookAtSide } from './side.ts'
import { platforms } from './table.ts'

test("a machine tells its platform, its kernel and a QEMU's version", async () => {
  const qemu = ['sh', '-c', 'echo "QEMU emulator version 11.1.0 (Debian 1:11.1.0+ds-2)"; echo Copyright', 'qemu']
  const side = await lookAtSide(new LocalMachine(), qemu, { timeoutMs: 30_000 })
  assert.deepEqual([side.kernel, side.qemu], [release(), '11.1.0'])
  assert.equal(side.qemuLine, 'QEMU emulator version 11.1.0 (Debian 1:11.1.0+ds-2)')
  assert.ok(platforms.includes(side.platform))
})
