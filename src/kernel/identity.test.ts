import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import type { DebianPackage } from '../bundle/apt/plan.ts'
import { parseDirectoryName } from '../bundle/manifest.ts'
import { kernelInputs, kernelName, recipeOf } from './identity.ts'
import { loadProfile } from './profile.ts'

let dir = ''
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'kernel-'))
  mkdirSync(join(dir, 'more'))
  write('p.toml', example())
  write('one.config', 'CONFIG_SMP=y\n')
  write('two.config', '# CONFIG_MODULES is not set\n')
  write('fix.patch', '--- a/Makefile\n')
  write('base.config', 'CONFIG_64BIT=y\n')
})
afterEach(() => rmSync(dir, { recursive: true }))

const write = (name: string, text: string) => writeFileSync(join(dir, name), text)
const example = (lines: Record<string, string> = {}) => {
  const all = {
    ...{ arch: '"x86_64"', suite: '"bookworm"', source: '"linux-source-6.1"', base: '"./base.config"' },
    ...{ fragments: '["one.config", "two.config"]', patches: '["fix.patch"]' },
    ...lines,
  }
  return Object.entries(all)
    .map(([key, value]) => `${key} = ${value}\n`)
    .join('')
}
const parts: DebianPackage[] = ['linux-source-6.1', 'gcc-12'].map((name) => {
  return { name, version: '6.1.2-1', arch: 'amd64', sha256: 'a'.repeat(64), size: 1, file: `${name}.deb` }
})
const nameOf = async (path = 'p.toml', packages = parts) =>
  kernelName(kernelInputs(await loadProfile(join(dir, path)), packages))

test('the name of a kernel carries its version and a digest, and is known for a kernel of the bundle', async () => {
  const name = await nameOf()
  assert.match(name, /^kernel-6\.1\.2-1-x86_64-[0-9a-f]{16}$/)
  assert.deepEqual(parseDirectoryName(name), {
    ...{ kind: 'kernel', arch: 'x86_64', digest: name.slice(-16) },
  })
})

const changes: Record<string, () => void> = {
  'a fragment': () => write('one.config', 'CONFIG_SMP=y \n'),
  'another fragment': () => write('two.config', 'CONFIG_MODULES=y\n'),
  "the fragments' order": () => write('p.toml', example({ fragments: '["two.config", "one.config"]' })),
  'a patch': () => write('fix.patch', '--- a/Kbuild\n'),
  'the patches': () => write('p.toml', example({ patches: '[]' })),
  'the base configuration': () => write('base.config', 'CONFIG_64BIT=n\n'),
  'another base': () => write('p.toml', example({ base: '"tinyconfig"' })),
  'the version': () => write('p.toml', example({ source: '"linux-source-6.12"' })),
  'the suite': () => write('p.toml', example({ suite: '"bookworm-backports"' })),
  'the architecture': () => write('p.toml', example({ arch: '"arm64"' })),
}
for (const [what, change] of Object.entries(changes)) {
  test(`${what} makes another kernel`, async () => {
    const before = recipeOf(await loadProfile(join(dir, 'p.toml')))
    const name = await nameOf()
    change()
    assert.notEqual(recipeOf(await loadProfile(join(dir, 'p.toml'))), before)
    assert.notEqual(await nameOf(), name)
  })
}

test('another source or compiler package makes another kernel', async () => {
  const names = [await nameOf()]
  for (const index of parts.keys()) {
    names.push(
      await nameOf(
        'p.toml',
        parts.with(index, { ...parts[0], ...parts[index], sha256: 'b'.repeat(64) } as DebianPackage),
      ),
    )
  }
  names.push(await nameOf('p.toml', parts.slice(0, 1)))
  assert.equal(new Set(names).size, names.length)
})

test('what is no part of the kernel changes nothing', async () => {
  const name = await nameOf()
  write('p.toml', `# words\n${example({ description: '"another"', arguments: '"nokaslr"', engine: '"qemu"' })}`)
  assert.equal(await nameOf(), name)
  write('p.toml', `${example()}prebuilt.url = "https://example.org/{name}.tar"\n`)
  assert.equal(await nameOf(), name)
  for (const file of ['p.toml', 'one.config', 'two.config', 'fix.patch', 'base.config']) {
    writeFileSync(join(dir, 'more', file), readFileSync(join(dir, file)))
  }
  write('more/q.toml', example())
  assert.equal(await nameOf('more/q.toml'), name)
})
