import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { exampleRecord } from './example-record.ts'
import { saveRecord } from './record.ts'
import { sshConfig } from './ssh-config.ts'

const home = process.env.XDG_STATE_HOME
const dir = mkdtempSync(join(tmpdir(), 'config-'))
before(() => {
  process.env.XDG_STATE_HOME = join(dir, '50%h')
})
after(() => {
  rmSync(dir, { recursive: true })
  if (home === undefined) delete process.env.XDG_STATE_HOME
  else process.env.XDG_STATE_HOME = home
})

test('a percent sign in a path is no token of ssh', async () => {
  await saveRecord(exampleRecord('vm'))
  const config = await sshConfig(['/opt/100%/nestvm'])
  assert.match(config, /ProxyCommand \S*\/opt\/100%%\/nestvm ssh-proxy vm/)
  assert.match(config, /IdentityFile ".*50%%h\/nestvm\/machines\/vm\/key"/)
  assert.match(config, /UserKnownHostsFile ".*50%%h.*"/)
})
