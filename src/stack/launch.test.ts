import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { LocalMachine } from '../machine/local.ts'
import { qemuSpec } from './describe.ts'
import { exampleRecord } from './example-record.ts'
import { launchOnHost } from './launch.ts'

test('an engine that is called off before anybody waits for its guest does not end this process', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'launch-'))
  const baseInitrd = join(dir, 'initrd')
  writeFileSync(baseInitrd, '')
  const place = {
    ...{ machine: new LocalMachine(), qemu: [], kernel: '', baseInitrd },
    ...{ containerInitrd: '', volumeInitrd: '', counterKhz: undefined, kernelArguments: '' },
  }
  const record = exampleRecord('called-off', { engineDir: join(dir, 'engine'), socketDir: join(dir, 'engine') })
  const stop = new AbortController()
  const spec = qemuSpec(record, place, false, [])
  const command = ['sh', '-c', 'exec sleep 60']
  const launched = await launchOnHost({
    place,
    spec,
    command,
    archives: [],
    initrd: Buffer.alloc(0),
    signal: stop.signal,
  })
  stop.abort()
  // What nobody has begun to wait for by now would end the process.
  await sleep(50)
  launched.process.kill('SIGKILL')
  await assert.rejects(launched.up, { name: 'AbortError' })
  rmSync(dir, { recursive: true })
})
