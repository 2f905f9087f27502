import { createHash } from 'node:crypto'
import { NestvmError } from '../../store/error.ts'
import { type Limits, tooLarge } from '../limits.ts'
import { readTar } from '../tar/reader.ts'
import { applyEntry } from './apply.ts'
import { openLayer, type Reading } from './compression.ts'
import { Tree } from './tree.ts'

export interface LayerFile {
  path: string
  /** Digest of the unpacked tar, as the image's config has it. */
  diffId: string
}

/**
 * Reads all layers once, from the lowest, each as soon as it is there, and gives the tree that they make. Checks what
 * they unpack to against the config's digests. Throws `IMAGE_BAD_LAYER`, `IMAGE_BAD_PATH`, `IMAGE_BAD_LINK`,
 * `IMAGE_BAD_DIGEST`, `IMAGE_TOO_LARGE`.
 */
export async function scanLayers(
  layers: readonly Promise<LayerFile>[],
  { limits, onLayer, ...reading }: Reading & { limits: Limits; onLayer?: (index: number) => void },
): Promise<Tree> {
  const tree = new Tree(limits)
  const budget = new Budget(limits)
  for (const [index, layer] of layers.entries()) {
    const { path, diffId } = await layer
    onLayer?.(index)
    const [algorithm = ''] = diffId.split(':')
    const hash = createHash(algorithm)
    const watched = async function* () {
      for await (const chunk of openLayer(path, reading)) {
        hash.update(chunk)
        budget.spend('unpacked', chunk.length)
        yield chunk
      }
    }
    let ordinal = 0
    for await (const entry of readTar(watched())) {
      budget.spend('declared', entry.size)
      budget.spend('entries', 1)
      applyEntry(tree, entry, index, ordinal++)
    }
    const found = `${algorithm}:${hash.digest('hex')}`
    if (found !== diffId) throw wrongDiffId(diffId, found)
  }
  return tree
}

/** Counts unpacked bytes, and what headers declare, which is told before a single byte of it is read. */
class Budget {
  private readonly spent = { unpacked: 0, declared: 0, entries: 0 }

  constructor(private readonly limits: Limits) {}

  spend(what: 'unpacked' | 'declared' | 'entries', amount: number): void {
    this.spent[what] += amount
    const { entries, unpackedBytes } = this.limits
    if (this.spent.entries > entries)
      throw tooLarge(`the image has more than ${entries} files`, 'NESTVM_IMAGE_MAX_FILES')
    if (what !== 'entries' && this.spent[what] > unpackedBytes) {
      throw tooLarge(`the image unpacks to more than ${unpackedBytes / 2 ** 30} GiB`, 'NESTVM_IMAGE_MAX_GIB')
    }
  }
}

function wrongDiffId(expected: string, found: string): NestvmError {
  return new NestvmError('IMAGE_BAD_DIGEST', `a layer unpacks to ${found}, but the image's config says ${expected}`, {
    hint: 'the image is broken or was tampered with: pull it again, or do not use it',
    details: { expected, found },
  })
}
