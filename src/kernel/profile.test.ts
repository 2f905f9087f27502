import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { strangeLines } from './config.ts'
import { loadProfile, profileNames } from './profile.ts'

const dir = mkdtempSync(join(tmpdir(), 'profile-'))
const profiles = join(dir, 'nestvm/profiles')
const given = process.env.XDG_CONFIG_HOME
before(() => {
  process.env.XDG_CONFIG_HOME = dir
  mkdirSync(profiles, { recursive: true })
})
after(() => {
  if (given === undefined) delete process.env.XDG_CONFIG_HOME
  else process.env.XDG_CONFIG_HOME = given
  rmSync(dir, { recursive: true })
})
const write = (name: string, text: string) => writeFileSync(join(profiles, name), text)
const least = 'arch = "x86_64"\nsuite = "bookworm"\nsource = "linux-source-6.1"\nbase = "tinyconfig"\n'

test('every built-in profile is one, and its fragments are options only', async () => {
  const names = await profileNames()
  assert.ok(names.includes('nested'), names.join(' '))
  for (const name of names) {
    const { fragments } = await loadProfile(name)
    assert.ok(fragments.length > 0)
    for (const { text } of fragments) assert.deepEqual(strangeLines(text), [])
  }
})

test('a profile of the user’s own is found by its name, and comes before a built-in one', async () => {
  write('mine.toml', least)
  write('nested.toml', `${least}arguments = "quiet loglevel=3"\n`)
  assert.equal((await loadProfile('mine')).path, join(profiles, 'mine.toml'))
  assert.equal((await loadProfile('nested')).arguments, 'quiet loglevel=3')
  rmSync(join(profiles, 'nested.toml'))
  assert.notEqual((await loadProfile('nested')).path, join(profiles, 'nested.toml'))
})

test('a profile that is not there is told with those that are', async () => {
  await assert.rejects(loadProfile('walk'), (error: { code: string; details: { profiles: string[] } }) => {
    assert.equal(error.code, 'NO_SUCH_PROFILE')
    assert.ok(error.details.profiles.includes('nested'))
    return true
  })
  await assert.rejects(loadProfile(join(profiles, 'walk.toml')), { code: 'NO_SUCH_PROFILE' })
})

const bad: Record<string, string> = {
  'no TOML': 'arch = ',
  'an unknown key': `${least}fragment = "one.config"\n`,
  'no source': least.replace(/^source.*\n/m, ''),
  'another package for a source': least.replace('linux-source-6.1', 'bash'),
  'an engine that there is none of': `${least}engine = "bhyve"\n`,
  'a fragment that is not there': `${least}fragments = ["absent.config"]\n`,
  'arguments of two lines': `${least}arguments = "a\\nb"\n`,
}
for (const [what, text] of Object.entries(bad)) {
  test(`${what} is refused`, async () => {
    write('bad.toml', text)
    await assert.rejects(loadProfile('bad'), { code: 'BAD_PROFILE', exitStatus: 2 })
  })
}

test('no profile is called as Debian’s kernel is', async () => {
  write('default.toml', least)
  await assert.rejects(loadProfile('default'), { code: 'BAD_PROFILE' })
})
