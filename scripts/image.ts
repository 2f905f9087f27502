// Makes an OCI image of nestvm itself, as a layout: `npm run image -- DIR`, then `nestvm run --nested oci:DIR`.
// From Debian packages and from what `npm pack` packs; without root, and the same inputs give the same digests.
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { cachePaths } from '../src/store/paths.ts'
import { debianFiles } from './image/debian.ts'
import { layer, writeLayout } from './image/layout.ts'
import { packageFiles } from './image/package.ts'

const [output] = process.argv.slice(2)
if (!output) {
  console.error('usage: npm run image -- DIR')
  process.exit(2)
}

/** Beside nestvm's cache: lists and packages stay there for the next time. */
const work = `${cachePaths().dir}-image`
await mkdir(work, { recursive: true, mode: 0o700 })
const scratch = await mkdtemp(join(work, 'build-'))
try {
  const root = new URL('..', import.meta.url).pathname
  const { files, version } = await packageFiles(root, scratch)
  // What changes seldom comes first: both layers stand for themselves in registries.
  const layers = [layer(await debianFiles(join(work, 'apt'), scratch)), layer(files)]
  const digest = await writeLayout(resolve(output), layers, {
    name: version,
    config: { Env: ['PATH=/usr/local/bin:/usr/bin'], Cmd: ['nestvm', '--help'], WorkingDir: '/root' },
  })
  console.log(`oci:${resolve(output)}  ${digest}`)
} finally {
  await rm(scratch, { recursive: true, force: true })
}
