import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { guestIn } from '../bundle/guest/guest.ts'
import { Context } from '../stack/context.ts'
import { qemuSpec } from '../stack/describe.ts'
import { exampleRecord } from '../stack/example-record.ts'
import { hostPlace } from '../stack/place.ts'
import { resume } from './engine.ts'

test('a QEMU that ends at once is told as that, and nothing goes on trying to connect to it', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'resume-'))
  const qemuArgv = () => ['sh', '-c', 'echo no such machine >&2; exit 1', 'qemu']
  const bundle = {
    ...{ digest: 'd', arch: 'x86_64' as const, dirs: [] },
    tools: { dir: '/tools', argv: (program: string) => [program], qemuArgv },
    guest: guestIn('/guest', 'x86_64', { kernelRelease: '6.1' }),
  }
  const context = new Context(new AbortController().signal)
  let tries = 0
  const connect = context.host.connect.bind(context.host)
  context.host.connect = (...given) => {
    tries++
    return connect(...given)
  }
  const record = exampleRecord('gone', { engineDir: join(dir, 'engine'), socketDir: join(dir, 'engine') })
  const spec = { ...qemuSpec(record, hostPlace(undefined, bundle, undefined), false, []), restored: true }
  const saved = { path: join(dir, 'state'), memory: 'apart' } as const
  await assert.rejects(resume(context, bundle, spec, [], saved, context.signal), {
    code: 'RESTORE_FAILED',
    message: /no such machine/,
  })
  const before = tries
  await sleep(100)
  assert.equal(tries, before)
  rmSync(dir, { recursive: true })
})
