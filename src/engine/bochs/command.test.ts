import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { LocalMachine } from '../../machine/local.ts'
import { run } from '../../machine/run.ts'
import { engineFiles } from '../qemu/argv.ts'
import { bochsCommand } from './command.ts'

const dir = mkdtempSync(join(tmpdir(), 'bochs-'))
test.after(() => rmSync(dir, { recursive: true }))

/** Programs that tell what they are given, in files; setpriv's own arguments are three. */
const say = (name: string, more: string) => ['sh', '-c', `printf '%s\\n' "$@" > ${name}.args; ${more}`, name]
const programs = {
  setpriv: ['sh', '-c', 'shift 3; exec "$@"', 'setpriv'],
  switch: say('switch', 'mkdir -p wire; : > wire/ctl; exec sleep 60'),
  qemu: say('qemu', ': > qmp; exec sleep 60'),
  bochs: say('bochs', 'read -r children < /proc/$$/task/$$/children; echo $children > children; kill $children'),
}

const spec = {
  ...{ name: 'a', files: engineFiles(dir), endWithParent: true, dir, socketDir: dir },
  network: {
    kind: 'user' as const,
    forwards: [{ socket: join(dir, 'ssh'), address: '10.1.2.3', port: 22 }],
    services: [],
  },
}

test('Bochs starts when its network is ready, and is the parent of what makes that', async () => {
  await run(new LocalMachine(), bochsCommand(spec, programs))
  const args = (name: string) =>
    readFileSync(join(dir, `${name}.args`), 'utf8')
      .trim()
      .split('\n')
  assert.deepEqual(args('switch'), ['--sock', join(dir, 'wire')])
  assert.deepEqual(args('bochs'), ['-q', '-f', join(dir, 'bochsrc')])
  const qemu = args('qemu')
  assert.equal(qemu[qemu.indexOf('-machine') + 1], 'none')
  assert.ok(qemu.includes(`vde,id=wire,sock=${join(dir, 'wire')}`))
  assert.ok(qemu.includes(join(dir, 'engine.pid')))
  assert.ok(qemu.some((word) => word.includes(`restrict=on,hostfwd=unix:${join(dir, 'ssh')}-10.1.2.3:22`)))
  assert.equal(readFileSync(join(dir, 'children'), 'utf8').trim().split(' ').length, 2)
})

test('where the network does not start, Bochs does not', async () => {
  rmSync(join(dir, 'never'))
  rmSync(join(dir, 'qmp'))
  writeFileSync(join(dir, 'bochs.args'), 'not started')
  const broken = { ...programs, qemu: ['sh', '-c', 'exit 1', 'qemu'] }
  const command = bochsCommand(
    { ...spec, endWithParent: false },
    { ...broken, switch: ['sh', '-c', ': ; sleep 1', 'switch'] },
  )
  await assert.rejects(run(new LocalMachine(), command), { code: 'COMMAND_FAILED' })
  assert.equal(readFileSync(join(dir, 'bochs.args'), 'utf8'), 'not started')
})
