export interface ImageProgressEvent {
  /**
   * `wait`: another process gets the same. `resolve`: asking what the image consists of. `download`: one layer; those of
   * several layers come by turns. `check`: unpacking a layer to see what is in it. `build`: writing the squashfs.
   */
  phase: 'wait' | 'resolve' | 'download' | 'check' | 'build'
  /** For people: the reference, or a layer's digest cut short. */
  label: string
  bytesDone: number
  bytesTotal?: number
}

export type ImageProgress = (event: ImageProgressEvent) => void
